"""The verdicts of the gate: passed, regressed, unchecked, or too few images to tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from cembench.evaluation.compare import Difference, differences, right_of
from cembench.evaluation.gate.baseline import Baseline, Row, gated_of
from cembench.evaluation.gate.conditions import changed_software, require_same_images
from cembench.evaluation.record import Record
from cembench.evaluation.section import GatedValue
from cembench.evaluation.statistics import holm, paired_interval
from cembench.util.lazy import lazy_imports

with lazy_imports():
    import pandas as pd

MOST = 10_000_000
SANITY = "sanity"
UNCHECKED = "nothing looked for gradient masking: add sanity to the protocol, or --allow-unchecked"

Word = Literal["pass", "regression", "inconclusive", "unchecked", "error"]


@dataclass(frozen=True)
class Outcome:
    """One figure of one checkpoint compared with the baseline.

    Attributes:
        row: the checkpoint's name in the baseline.
        verdict: `error` when there is no figure to compare; `unchecked` where nothing looked for
            gradient masking.
        was: the baseline's figure; `now` is today's.
        note: the difference in words, with its interval or tolerance.
        p_value: chance of such a drop if nothing had changed, over all accuracies (Holm).
        lost: numbers of the images that were right and are not any more; `won` the other way.
        allowed: whether the user lets it pass all the same.
    """

    row: str
    metric: str
    verdict: Word
    was: float | None = None
    now: float | None = None
    note: str = ""
    p_value: float | None = None
    lost: list[int] = field(default_factory=list)
    won: list[int] = field(default_factory=list)
    allowed: bool = False

    @property
    def passes(self) -> bool:
        """Whether nothing has to be done about it."""
        return self.verdict == "pass" or self.allowed


@dataclass(frozen=True)
class Measured:
    """A row of a baseline and the checkpoint of its name, as it is now.

    Attributes:
        row: the row.
        before: its table of verdicts.
        record: the record of the checkpoint.
        table: the checkpoint's table of verdicts.
    """

    row: Row
    before: pd.DataFrame
    record: Record
    table: pd.DataFrame

    @property
    def figures(self) -> dict[str, float]:
        """The accuracies of the row."""
        return {name: float(right.mean()) for name, right in right_of(self.before).items()}


def judge(
    baseline: Baseline, found: Mapping[str, Measured], allow_unchecked: bool = False
) -> list[Outcome]:
    """Compare records with their rows of a baseline.

    An accuracy regresses when significantly more images were lost than won (McNemar's exact test,
    one-sided, with Holm's correction over all accuracies); it passes when the 95 % interval of the
    paired difference stays above −margin; otherwise more images are needed to tell. Other figures
    regress when they are worse by more than their tolerance, and a sanity check when it fails that
    did not before. A figure of the baseline that the record lacks is an error.

    Args:
        baseline: what to compare with.
        found: by name of the row, what was measured then and now.
        allow_unchecked: let rows pass without sanity checks.

    Raises:
        CembenchError: when a record is of other images, or has no figures.
    """
    pairs: list[tuple[str, Difference]] = []
    rest: list[Outcome] = []
    for name, one in found.items():
        require_same_images(name, one.row, one.before, one.record, one.table)
        both = differences(one.before, one.table)
        own = {pair.figure: pair for pair in both if pair.figure in one.record.accuracies}
        pairs += [(name, pair) for pair in own.values()]
        now = gated_of(one.record)
        rest += [_missing(name, key, was) for key, was in one.figures.items() if key not in own]
        rest += [_metric(name, key, was, now.get(key)) for key, was in one.row.metrics.items()]
        rest += _parts(name, one.row, one.record) + _software(name, one.row)
        rest.append(_sanity(name, one.row, one.record, allow_unchecked))
    adjusted = holm([pair.drop_p_value for _, pair in pairs])
    accuracies = [
        _accuracy(name, pair, p_value, baseline)
        for (name, pair), p_value in zip(pairs, adjusted, strict=True)
    ]
    order = list(found)
    return sorted([*accuracies, *rest], key=lambda outcome: order.index(outcome.row))


def _accuracy(name: str, pair: Difference, p_value: float, baseline: Baseline) -> Outcome:
    note = (
        f"{100 * pair.difference:+.1f} points "
        f"({100 * pair.low:+.1f} to {100 * pair.high:+.1f}), p = {p_value:.2g}"
    )
    note += f", {pair.untried} untried" if pair.untried else ""
    outcome = Outcome(
        row=name,
        metric=pair.figure,
        verdict="pass",
        was=pair.first / pair.images,
        now=pair.second / pair.images,
        note=note,
        p_value=p_value,
        lost=pair.only_first,
        won=pair.only_second,
    )
    if p_value <= baseline.level:
        return replace(outcome, verdict="regression")
    if pair.low > -baseline.margin:
        return outcome
    return replace(outcome, verdict="inconclusive", note=f"{note}; {_wanted(pair, baseline)}")


def _wanted(pair: Difference, baseline: Baseline) -> str:
    """Say how many images would tell, if they went as these did."""
    margin = f"the margin of {100 * baseline.margin:g} points"
    if pair.difference <= -baseline.margin:
        return f"beyond {margin}, but maybe by chance: more images needed"
    images = pair.images
    while images < MOST:
        images = round(images * 1.1) + 1
        share = images / pair.images
        lost, won = len(pair.only_first) * share, len(pair.only_second) * share
        if paired_interval(lost, won, images)[0] > -baseline.margin:
            break
    return f"{margin} is inside the interval: more images needed, about {images}"


def _metric(name: str, key: str, before: GatedValue, now: GatedValue | None) -> Outcome:
    if now is None:
        return _missing(name, key, before.value)
    worse = now.value - before.value if before.better == "lower" else before.value - now.value
    note = (
        f"{now.value - before.value:+.3g}, {before.better} is better, "
        f"tolerance {before.tolerance:.3g}"
    )
    verdict: Word = "regression" if worse > before.tolerance else "pass"
    return Outcome(name, key, verdict, before.value, now.value, note)


def _missing(name: str, key: str, was: float) -> Outcome:
    return Outcome(name, key, "error", was, note="the record has no such figure")


def _parts(name: str, row: Row, record: Record) -> list[Outcome]:
    """Return what cannot be measured any more; an attack without some stages still has a figure."""
    gone = [part for part in record.not_applicable if part not in row.not_applicable]
    note = f"not any more: {', '.join(gone)}"
    return [Outcome(name, "applicable parts", "error", note=note)] if gone else []


def _software(name: str, row: Row) -> list[Outcome]:
    """Return what changed of the software, which the user lets pass."""
    changed = changed_software(row)
    return [Outcome(name, "software", "pass", note=f"{changed}, allowed")] if changed else []


def _sanity(name: str, row: Row, record: Record, allow_unchecked: bool) -> Outcome:
    """Return one outcome for all checks together."""
    done = {check.name for check in record.sanity if check.verdict in ("pass", "fail")}
    new = [check for check in record.sanity_failed if check not in row.sanity_failed]
    gone = [check for check in row.sanity_passed if check not in done]
    if new:
        return Outcome(name, SANITY, "regression", note=f"new: {', '.join(new)}")
    if gone:
        return Outcome(name, SANITY, "error", note=f"no verdict any more: {', '.join(gone)}")
    if record.unchecked or not done:
        return Outcome(name, SANITY, "unchecked", note=UNCHECKED, allowed=allow_unchecked)
    return Outcome(name, SANITY, "pass", note="no check fails that did not before")

"""The verdicts of the gate: passed, regressed, or too few images to tell."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import pandas as pd

from cembench.evaluation.compare import Difference, differences
from cembench.evaluation.gate.baseline import Baseline, Row, gated_of, load_verdicts
from cembench.evaluation.record import Record
from cembench.evaluation.section import GatedValue
from cembench.evaluation.statistics import holm, paired_interval
from cembench.util.errors import CembenchError

MOST = 10_000_000
SANITY = "sanity"


@dataclass(frozen=True)
class Outcome:
    """One figure of one checkpoint compared with the baseline.

    Attributes:
        row: the checkpoint's name in the baseline.
        verdict: `error` when there is no figure to compare.
        was: the baseline's figure; `now` is today's.
        note: the difference in words, with its interval or tolerance.
        p_value: chance of such a drop if nothing had changed, over all accuracies (Holm).
        lost: numbers of the images that were right and are not any more; `won` the other way.
    """

    row: str
    metric: str
    verdict: Literal["pass", "regression", "inconclusive", "error"]
    was: float | None = None
    now: float | None = None
    note: str = ""
    p_value: float | None = None
    lost: list[int] = field(default_factory=list)
    won: list[int] = field(default_factory=list)


def judge(
    baseline: Baseline, path: Path, found: dict[str, tuple[Record, pd.DataFrame]]
) -> list[Outcome]:
    """Compare records with their rows of a baseline.

    An accuracy regresses when significantly more images were lost than won (McNemar's exact test,
    one-sided, with Holm's correction over all accuracies); it passes when the 95 % interval of the
    paired difference stays above −margin; otherwise more images are needed to tell. Other figures
    regress when they are worse by more than their tolerance, and a sanity check when it fails that
    did not before.

    Args:
        baseline: what to compare with.
        path: its file, from where verdicts are found.
        found: by name of the row, the record and its table of verdicts.

    Raises:
        CembenchError: when a record is of other images, or has no figures.
    """
    pairs: list[tuple[str, Difference]] = []
    rest: list[Outcome] = []
    for name, (record, table) in found.items():
        row = baseline.rows[name]
        _require_alike(name, row, record)
        pairs += [(name, pair) for pair in _pairs(load_verdicts(path, row), table)]
        now = gated_of(record)
        rest += [_metric(name, key, value, now.get(key)) for key, value in row.metrics.items()]
        rest += _sanity(name, row, record)
    adjusted = holm([pair.drop_p_value for _, pair in pairs])
    accuracies = [
        _accuracy(name, pair, p_value, baseline)
        for (name, pair), p_value in zip(pairs, adjusted, strict=True)
    ]
    order = list(found)
    return sorted([*accuracies, *rest], key=lambda outcome: order.index(outcome.row))


def _pairs(before: pd.DataFrame, now: pd.DataFrame) -> list[Difference]:
    if list(before["index"]) != list(now["index"]):
        raise CembenchError("the baseline's verdicts are about other images; --update it")
    return differences(before, now)


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
        return Outcome(name, key, "error", before.value, note="could not be measured")
    worse = now.value - before.value if before.better == "lower" else before.value - now.value
    note = (
        f"{now.value - before.value:+.3g}, {before.better} is better, "
        f"tolerance {before.tolerance:.3g}"
    )
    verdict: Literal["pass", "regression"] = "regression" if worse > before.tolerance else "pass"
    return Outcome(name, key, verdict, before.value, now.value, note)


def _sanity(name: str, row: Row, record: Record) -> list[Outcome]:
    """Return one outcome for all checks together, if there are any."""
    new = [check for check in record.sanity_failed if check not in row.sanity_failed]
    note = f"new: {', '.join(new)}" if new else "no check fails that did not before"
    verdict: Literal["pass", "regression"] = "regression" if new else "pass"
    return [Outcome(name, SANITY, verdict, note=note)] if record.sanity else []


def _require_alike(name: str, row: Row, record: Record) -> None:
    if record.error is not None:
        raise CembenchError(f"{name}: could not be evaluated: {record.error}")
    if record.fingerprint != row.fingerprint:
        raise CembenchError(f"{name}: the attacked images are not those of the baseline")

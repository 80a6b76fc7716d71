"""Smallest perturbations that fool a network, by attacks that minimise a norm."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

from cembench.energy.norms import NORMS
from cembench.energy.threat import NormName
from cembench.evaluation.diff import Comparison, compared
from cembench.evaluation.section import GatedValue, Section
from cembench.evaluation.sections.curve import CurvePoint, lines
from cembench.evaluation.statistics import median_interval, rate
from cembench.util.display.charts import Cell, Chart, Table
from cembench.util.display.format import number, percent, with_interval
from cembench.util.settings import Positive, Settings

if TYPE_CHECKING:
    import pandas as pd

POINTS = 20  # of a curve, unless its radii are given: the accuracy falls by a twentieth each
MEDIANS = tuple(f"_median_{norm}" for norm in NORMS)  # ends of the columns of medians
CAPTION = (
    "Accuracy over the size of the perturbation, a panel per norm, from attacks that look for the "
    "smallest one. Dotted: the radius of the threat model. Bands, drawn for up to eight lines: "
    "95 % Wilson intervals."
)
NOTE = (
    "Of the smallest perturbations that were found, an upper bound of those that there are, with "
    "the 95 % interval of the median. An image that is misclassified without attack counts as 0."
)


class MinimalConfig(Settings):
    """Settings of smallest perturbations (`minimal` in a protocol).

    They are measured with every attack that minimises a norm, whatever the threat model's.

    Attributes:
        eps: by norm, the radii at which accuracies are counted from the sizes; those at which the
            accuracy falls by a twentieth, unless given.
    """

    eps: dict[NormName, list[Positive]] = {}


class Minimal(Settings):
    """The smallest perturbations that one attack found.

    Sizes are those of all images: 0 for one that is misclassified without attack, infinite for one
    on which none was found.

    Attributes:
        norm: the one that the attack minimises.
        images: how many.
        found: images that are misclassified, without attack or under it.
        median: median size; None if it is infinite.
        low: lower end of its 95 % interval (order statistics), likewise.
        high: its upper end.
        curve: accuracy at rising radii, from 0 on.
        seconds: wall time of the attack.
    """

    norm: NormName
    images: int
    found: int
    median: float | None
    low: float | None
    high: float | None
    curve: list[CurvePoint]
    seconds: float = 0.0

    @classmethod
    def of(cls, sizes: pd.Series, norm: str, eps: list[float] | None, seconds: float) -> Self:
        """Count sizes, at some radii."""
        sizes = sizes.astype(float)
        median, low, high = map(_finite, median_interval(sizes.tolist()))
        kind = NORMS[norm]
        curve = [
            CurvePoint(
                eps=at, **rate(sizes > at + (kind(at).tolerance if eps and at else 0)).dump()
            )
            for at in [0.0, *(sorted(eps) if eps else _falls(sizes))]
        ]
        return cls(
            norm=norm,
            images=len(sizes),
            found=int((sizes < math.inf).sum()),
            median=median,
            low=low,
            high=high,
            curve=curve,
            seconds=round(seconds, 3),
        )

    @property
    def text(self) -> str:
        """The median and its norm."""
        return f"median {self.norm} {number(_or_infinite(self.median))}"


class MinimalSection(Section[MinimalConfig | None, dict[str, Minimal]]):
    """Smallest perturbations by attack, where one that attacks all images minimises a norm."""

    key = "minimal"
    setting = (MinimalConfig | None, None)
    result_key = "minimal"
    result = (dict[str, Minimal], {})
    optional = True

    def config(self, protocol: Any) -> MinimalConfig | None:
        """Return its settings, which need not be in the protocol."""
        measured = any(one.minimises and one.on == "all" for one in protocol.attacks)
        return (protocol.minimal or MinimalConfig()) if measured else None

    def compare(self, recorded: dict[str, Minimal], again: dict[str, Minimal]) -> list[Comparison]:
        """Compare all but wall times."""
        before, now = (
            {title: found.model_dump(exclude={"seconds"}) for title, found in one.items()}
            for one in (recorded, again)
        )
        return compared(self.result_key, before, now, self.later)

    def columns(self, result: dict[str, Minimal]) -> dict[str, Any]:
        """Return the median of each attack with its interval."""
        return {
            f"{title}_median_{found.norm}{end}": value
            for title, found in result.items()
            for end, value in (("", found.median), ("_low", found.low), ("_high", found.high))
        }

    def panels(self, records: Mapping[str, Any]) -> list[Chart]:
        """Return accuracy over the size of the perturbation, a panel per norm."""
        curves: dict[str, dict[str, list[CurvePoint]]] = {}
        for run, record in records.items():
            for title, found in record.minimal.items():
                own = curves.setdefault(found.norm, {})
                own[f"{run}, {title}" if run in own else run] = found.curve
        names = dict.fromkeys(name for own in curves.values() for name in own)
        threat = next(iter(records.values())).threat
        panels = [
            lines(
                {name: own.get(name, []) for name in names},
                threat.eps if norm == threat.norm else None,
                norm,
            )
            for norm, own in curves.items()
        ]
        columns = min(len(panels), 3)
        chart = Chart(self.key, "Smallest perturbations", CAPTION, panels, columns)
        return [chart] if panels else []

    def details(self, result: dict[str, Minimal]) -> list[Table]:
        """Return the table of medians, one row per attack, and a table of radii for each."""
        head = ["attack", "norm", "median", "found", "time"]
        tables = [Table("Smallest perturbations", head, list(_rows(result)), NOTE)]
        return [*tables, *_radii(result)] if result else []

    def gated(self, result: dict[str, Minimal]) -> dict[str, GatedValue]:
        """Return the medians, which may fall by the length of their intervals below them."""
        return {
            f"median_{found.norm} {title}": GatedValue(
                value=found.median, tolerance=round(found.median - found.low, 6), better="higher"
            )
            for title, found in result.items()
            if found.median is not None and found.low is not None
        }


def _rows(result: dict[str, Minimal]) -> Iterator[list[Cell]]:
    for title, found in result.items():
        median, low, high = map(_or_infinite, (found.median, found.low, found.high))
        size = Cell.of(found.median, with_interval(median, low, high))
        seconds = Cell.of(found.seconds, number(found.seconds, ".1f") + " s")
        there = Cell(f"{found.found} of {found.images}")
        yield [Cell(title), Cell(found.norm), size, there, seconds]


def _radii(result: dict[str, Minimal]) -> Iterator[Table]:
    for title, found in result.items():
        rows = [
            [Cell(number(point.eps, ".4g")), Cell.of(point.accuracy, percent(point.accuracy))]
            for point in found.curve
        ]
        yield Table(f"Accuracy over ε in {found.norm}, {title}", ["ε", "accuracy"], rows)


def _falls(sizes: pd.Series) -> list[float]:
    """Return the sizes at which the accuracy falls below each twentieth."""
    ranked = sorted(sizes)
    chosen = [ranked[math.ceil(part * len(ranked) / POINTS) - 1] for part in range(1, POINTS + 1)]
    return sorted({size for size in chosen if 0 < size < math.inf})


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _or_infinite(value: float | None) -> float:
    return math.inf if value is None else value

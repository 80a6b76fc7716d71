"""Accuracy over the radius ε as a chart and a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cembench.evaluation.record import Record
from cembench.evaluation.sections.curve import CurvePoint
from cembench.reporting.sections.robustness import rate
from cembench.util.charts import Axis, Cell, Chart, Lines, Series, Table
from cembench.util.format import number

CAPTION = (
    "Accuracy under attack at rising radii. An image that was broken at a radius counts as broken "
    "at all larger ones. Bands, drawn for up to eight runs: 95 % Wilson intervals."
)


def panels(records: Mapping[str, Record]) -> list[Chart]:
    """Return the curves of all records that have one; they share a threat model."""
    curves = {name: record.curve for name, record in records.items() if record.curve}
    if not curves:
        return []
    eps = next(iter(records.values())).threat.eps
    return [Chart("curves", "Accuracy over ε", CAPTION, [lines(curves, eps)])]


def lines(curves: Mapping[str, Sequence[CurvePoint]], eps: float, title: str = "") -> Lines:
    """Return accuracy under attack over ε with 95 % bands, and the threat model's radius `eps`."""
    series = [
        Series(
            name,
            x=[point.eps for point in points],
            y=[point.accuracy for point in points],
            low=[point.low for point in points],
            high=[point.high for point in points],
        )
        for name, points in curves.items()
    ]
    x, y = Axis("ε", zero=True), Axis("accuracy under attack", percent=True)
    return Lines(series, x, y, title, {f"threat model, {eps:.4g}": eps}, dots=True)


def details(record: Record) -> list[Table]:
    """Return the table of radii."""
    rows = [[Cell(number(point.eps, ".4g")), *rate(point)] for point in record.curve]
    return [Table("Accuracy over ε", ["ε", "accuracy", "correct"], rows)] if rows else []

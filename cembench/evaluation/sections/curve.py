"""Robust accuracy at other radii than that of the threat model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, SerializeAsAny, field_validator

from cembench.attacks import Attack, attacks
from cembench.evaluation.section import Section, rate_cells
from cembench.evaluation.statistics import Rate, rate
from cembench.util.display.charts import Axis, Cell, Chart, Lines, Series, Table
from cembench.util.display.format import number
from cembench.util.settings import Positive, Settings, optional_field

if TYPE_CHECKING:
    import pandas as pd

TITLE = "curve"  # of its attack, in the cache
CAPTION = (
    "Accuracy under attack at rising radii. An image that was broken at a radius counts as broken "
    "at all larger ones. Bands, drawn for up to eight runs: 95 % Wilson intervals."
)


class CurveConfig(Settings):
    """Settings of the robustness curve (`curve` in a protocol).

    Attributes:
        eps: the radii.
        factors: unless these are given, the radii as multiples of the threat model's.
        attack: run at each of them, on images on which no attack succeeded at a smaller one.
    """

    eps: Annotated[list[Positive], Field(min_length=1)] | None = None
    factors: Annotated[list[Positive], Field(min_length=1)] = optional_field(
        [0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0]
    )
    attack: Annotated[SerializeAsAny[Attack], attacks.field("pgd")] = Field(
        default_factory=lambda: attacks.parse({"name": "pgd", "steps": 20})
    )

    @field_validator("eps", "factors")
    @classmethod
    def _rising(cls, values: list[float] | None) -> list[float] | None:
        if values is not None and sorted(set(values)) != values:
            raise ValueError("the radii must rise")
        return values

    def radii(self, eps: float) -> list[float]:
        """Return the radii for a threat model of radius `eps`, rising."""
        return self.eps or [factor * eps for factor in self.factors if eps > 0]


class CurvePoint(Rate):
    """Images that survive at one radius.

    Attributes:
        eps: the radius; at 0 it is the clean accuracy.
    """

    eps: float


class CurveSection(Section[CurveConfig | None, list[CurvePoint]]):
    """Every image is attacked at rising radii until an attack succeeds."""

    key = "curve"
    setting = (CurveConfig | None, None)
    result_key = "curve"
    result = (list[CurvePoint], [])

    def panels(self, records: Mapping[str, Any]) -> list[Chart]:
        """Return the curves of all records that have one; they share a threat model."""
        curves = {name: record.curve for name, record in records.items() if record.curve}
        if not curves:
            return []
        eps = next(iter(records.values())).threat.eps
        return [Chart("curves", "Accuracy over ε", CAPTION, [lines(curves, eps)])]

    def details(self, result: list[CurvePoint]) -> list[Table]:
        """Return the table of radii."""
        rows = [[Cell(number(point.eps, ".4g")), *rate_cells(point)] for point in result]
        return [Table("Accuracy over ε", ["ε", "accuracy", "correct"], rows)] if rows else []


def points(table: pd.DataFrame, radii: list[float], title: str = TITLE) -> list[CurvePoint]:
    """Count the images that survive each radius, and none, from `TITLE_eps` of the table."""
    reached = table[f"{title}_eps"].astype(float).fillna(float("inf"))
    return [CurvePoint(eps=eps, **rate(reached > eps).dump()) for eps in [0.0, *radii]]


def lines(curves: Mapping[str, Sequence[CurvePoint]], eps: float | None, title: str = "") -> Lines:
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
    name = "" if title else f"threat model, {eps:.4g}"  # beside a title there is no room
    marks = {} if eps is None else {name: eps}
    return Lines(series, x, y, title, marks, dots=True)

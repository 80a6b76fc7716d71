"""Certified accuracy: a lower bound of the robust accuracy, whatever the attack."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, field_validator

from cembench.evaluation.section import Section, rate_cells
from cembench.evaluation.sections.curve import CurvePoint
from cembench.evaluation.statistics import Rate
from cembench.util.display.charts import EMPTY, Cell, Table
from cembench.util.display.format import number
from cembench.util.settings import Count, Positive, Settings

NOTE = (
    "Certified: no image in the ball is misclassified, by linear bounds of the activations. An "
    "image that is not certified may still be robust: the robust accuracy lies between the "
    "certified one and the one under attack, of the same images."
)


class CertifyConfig(Settings):
    """Settings of certified accuracy (`certify` in a protocol), for small networks.

    Attributes:
        factors: radii as multiples of the threat model's, rising.
        images: number of the attacked images that are tried, about 0.1 s each for a small network.
    """

    factors: Annotated[list[Positive], Field(min_length=1)] = [0.25, 0.5, 1.0]
    images: Count = 32

    @field_validator("factors")
    @classmethod
    def _rising(cls, values: list[float]) -> list[float]:
        if sorted(set(values)) != values:
            raise ValueError("the factors must rise")
        return values


class Certified(Settings):
    """Certified accuracy of one checkpoint.

    Attributes:
        points: certified images at rising radii.
        worst_case: those of the same images that survive all attacks, at the threat model's
            radius; None without attacks.
    """

    points: list[CurvePoint]
    worst_case: Rate | None = None


class CertifySection(Section[CertifyConfig | None, Certified | None]):
    """Attacked images in whose ball the network provably errs nowhere."""

    key = "certify"
    setting = (CertifyConfig | None, None)
    result_key = "certified"
    result = (Certified | None, None)
    optional = True

    def columns(self, result: Certified | None) -> dict[str, Any]:
        """Return the certified accuracy at each radius."""
        points = [] if result is None else result.points
        return {f"certified_{point.eps:.4g}": point.accuracy for point in points}

    def details(self, result: Certified | None) -> list[Table]:
        """Return the table of radii."""
        if result is None:
            return []
        rows = [[Cell(number(p.eps, ".4g")), *rate_cells(p)] for p in result.points]
        attacked = [EMPTY, EMPTY] if result.worst_case is None else rate_cells(result.worst_case)
        rows.append([Cell("under attack"), *attacked])
        return [Table("Certified accuracy", ["ε", "accuracy", "images"], rows, NOTE)]

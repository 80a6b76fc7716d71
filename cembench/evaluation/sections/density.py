"""The network as a density: calibration, energies, out-of-distribution scores, PGD and TA."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, field_validator

from cembench.data import DataSettings, datasets
from cembench.evaluation.section import GatedValue, Section
from cembench.evaluation.sections import density_charts
from cembench.evaluation.sections.density_results import ATTACKED, Density
from cembench.util.display.charts import Chart, Table
from cembench.util.settings import Count, Settings, optional_field


def _data_or_noise(value: Any) -> Any:
    return value if value == "noise" else datasets.parse(value)


Outside = Annotated[
    Literal["noise"] | SerializeAsAny[DataSettings], BeforeValidator(_data_or_noise)
]


class DensityConfig(Settings):
    """Settings of the density section (`density` in a protocol).

    Attributes:
        steps: gradients of PGD and of TA in the ball of the threat model, 2.5 ε / steps each.
        bins: number of equal-width bins of the calibration table.
        outside: out-of-distribution sets: `noise`, or data sets.
        attack_outside: whether their images are attacked too, within the ball around each: PGD
            raises the score that they are told by, with as many steps (as in RATIO, arXiv
            2003.09461).
    """

    steps: Count = 10
    bins: Annotated[int, Field(ge=1, le=1000)] = 15
    outside: list[Outside] = ["noise"]
    attack_outside: bool = optional_field(False)

    @field_validator("outside")
    @classmethod
    def _distinct(cls, values: list[Any]) -> list[Any]:
        titles = [value if isinstance(value, str) else value.title for value in values]
        for value, title in zip(values, titles, strict=True):
            taken = title in ("clean", "pgd", "ta") or (value != "noise" and title == "noise")
            taken = taken or f"{title}{ATTACKED}" in titles
            if taken or titles.count(title) > 1:
                raise ValueError(f"the title '{title}' is taken; give the data set an alias")
        return values


class DensitySection(Section[DensityConfig | None, Density | None]):
    """Energies of images that are clean, attacked, sampled and out of distribution."""

    key = "density"
    setting = (DensityConfig | None, None)
    result_key = "density"
    result = (Density | None, None)
    later = ("nll", "brier")

    def columns(self, result: Density | None) -> dict[str, Any]:
        """Return calibration, proper scores, AUROCs, and what PGD and TA do inside the ball."""
        if result is None:
            return {}
        found: dict[str, Any] = {"ece": result.calibration.ece}
        found |= {key: score.mean for key, score in result.proper_scores.items()}
        for title, scores in result.separations.items():
            found |= {f"auroc_{score}_{title}": one.auroc for score, one in scores.items()}
        for name, shift in result.pushed.items():
            found[f"{name}_ball_acc"] = shift.accuracy.accuracy
            found[f"{name}_ball_lse"] = shift.lse_change
        return found

    def panels(self, records: Mapping[str, Any]) -> list[Chart]:
        """Return energies, a table that compares all, and calibration."""
        found = {name: one.density for name, one in records.items() if one.density is not None}
        return density_charts.panels(found) if found else []

    def details(self, result: Density | None) -> list[Table]:
        """Return tables of energies, attacks in the ball, OOD scores and calibration."""
        return [] if result is None else density_charts.details(result)

    def gated(self, result: Density | None) -> dict[str, GatedValue]:
        """Return the calibration error and the AUROC of log p(x) for each set."""
        if result is None:
            return {}
        ece = GatedValue(value=result.calibration.ece, tolerance=0.02, better="lower")
        return {"ece": ece} | {
            f"auroc {title}": GatedValue(
                value=scores["log_px"].auroc, tolerance=0.02, better="higher"
            )
            for title, scores in result.separations.items()
        }

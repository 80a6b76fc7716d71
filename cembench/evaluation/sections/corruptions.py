"""Common corruptions: noise, blur, weather and digital artefacts at five severities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from cembench.data.corruptions import ALEXNET, COMMON, EXTRA, SEVERITIES, Corruption
from cembench.evaluation.section import GatedValue, Section
from cembench.evaluation.sections import corruption_charts
from cembench.evaluation.sections.corruption_results import Corruptions
from cembench.util.display.charts import Chart, Table
from cembench.util.errors import ConfigError
from cembench.util.settings import Positive, Settings

Severity = Annotated[int, Field(ge=1, le=5)]


class CorruptionsConfig(Settings):
    """Settings of the common corruptions (`corruptions` in a protocol).

    Attributes:
        names: the corruptions that the mean is over; the 15 common ones unless given.
        severities: from 1 to 5, rising.
        extra: whether the 4 extra corruptions are measured too, beside the mean.
        source: `generated` by cembench, or `files` that others made, such as CIFAR-10-C.
        root: the folder of these files, with `fog.npy` and so on, and `labels.npy`.
        baseline: errors that mCE divides by: AlexNet's on ImageNet-C (`alexnet`), or those of a
            network of yours, mean over the severities, by the name of the corruption. No mCE
            without.
    """

    names: Annotated[list[Corruption], Field(min_length=1)] | None = None
    severities: Annotated[list[Severity], Field(min_length=1)] = [1, 2, 3, 4, 5]
    extra: bool = False
    source: Literal["generated", "files"] = "generated"
    root: str | None = None
    baseline: Literal["alexnet"] | dict[str, Positive] | None = None

    @field_validator("names", "severities")
    @classmethod
    def _distinct(cls, values: list[Any] | None) -> list[Any] | None:
        if values is not None and len(set(values)) != len(values):
            raise ValueError("each may be given once")
        if values and isinstance(values[0], int) and sorted(values) != values:
            raise ValueError("severities must rise")
        return values

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.source == "files") != (self.root is not None):
            raise ConfigError.single("goes with source: files, and is needed there", "root")
        missing = [name for name in self.counted if name not in self.errors]
        if self.baseline is not None and missing:
            raise ConfigError.single(f"has no error for {', '.join(missing)}", "baseline")
        if self.baseline == "alexnet" and self.severities != [*SEVERITIES]:
            raise ConfigError.single("alexnet: its errors are means of five severities", "baseline")
        return self

    @property
    def counted(self) -> list[Corruption]:
        """The corruptions that the mean is over."""
        return list(COMMON) if self.names is None else self.names

    @property
    def asked(self) -> list[Corruption]:
        """All corruptions that are measured."""
        return [*self.counted, *(n for n in EXTRA if self.extra and n not in self.counted)]

    @property
    def errors(self) -> Mapping[str, float]:
        """The errors that mCE divides by; none without a baseline."""
        return ALEXNET if self.baseline == "alexnet" else self.baseline or {}


class CorruptionsSection(Section[CorruptionsConfig | None, Corruptions | None]):
    """Each attacked image under each corruption, at each severity."""

    key = "corruptions"
    setting = (CorruptionsConfig | None, None)
    result_key = "corruptions"
    result = (Corruptions | None, None)
    optional = True

    def columns(self, result: Corruptions | None) -> dict[str, Any]:
        """Return the mean accuracy, mCE, the worst corruption, and the mean of each."""
        if result is None:
            return {}
        title, mean = result.title, result.mean
        row: dict[str, Any] = {
            f"{title}_acc": mean.accuracy,
            f"{title}_acc_low": mean.low,
            f"{title}_acc_high": mean.high,
            f"{title}_mce": result.mce,
            f"{title}_worst": result.worst,
            f"{title}_auroc": result.auroc,
        }
        return row | {f"{title}_acc_{name}": result.accuracy(name) for name in result.cells}

    def panels(self, records: Mapping[str, Any]) -> list[Chart]:
        """Return accuracy and density over the severity, and a table of all corruptions."""
        found = {name: one.corruptions for name, one in records.items() if one.corruptions}
        return corruption_charts.panels(found) if found else []

    def details(self, result: Corruptions | None) -> list[Table]:
        """Return tables of accuracy and of density, by corruption and severity."""
        return [] if result is None else corruption_charts.details(result)

    def gated(self, result: Corruptions | None) -> dict[str, GatedValue]:
        """Return the mean accuracy."""
        if result is None:
            return {}
        value = GatedValue(value=result.mean.accuracy, tolerance=0.02, better="higher")
        return {f"{result.title} accuracy": value}

"""The parts of a protocol: what it says of samples, densities, sanity and radii."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, field_validator

from cembench.attacks import Attack, attacks
from cembench.data import DataSettings, datasets
from cembench.evaluation.extractors import Extractor, extractors
from cembench.evaluation.metrics import TAKEN, Metric, metrics
from cembench.samplers import Sampler, samplers
from cembench.util.settings import Count, Positive, Settings, optional_field


class SamplesConfig(Settings):
    """What a protocol says of samples.

    Attributes:
        samplers: what is drawn; the first one leads the ranking. One setting serves all rows.
        count: samples of each, and reference images; as many as the reference has unless given,
            and never more.
        extractor: whose features are compared.
        reference: the real images: those that are attacked (`test`), or `train` as in papers.
        batch_size: samples drawn together. The randomness depends on it.
        metrics: further figures, each by its name.
    """

    samplers: Annotated[list[SerializeAsAny[Sampler]], Field(min_length=1)]
    count: Annotated[int, Field(ge=20)] | None = None
    extractor: Annotated[SerializeAsAny[Extractor], extractors.field("lite0")] = Field(
        default_factory=lambda: extractors.parse("lite0")
    )
    reference: Literal["test", "train"] = "test"
    batch_size: Count = 256
    metrics: list[SerializeAsAny[Metric]] = optional_field([])

    @field_validator("samplers", mode="before")
    @classmethod
    def _parse(cls, values: Any) -> Any:
        return samplers.parse_all(values, "samplers")

    @field_validator("metrics", mode="before")
    @classmethod
    def _parse_metrics(cls, values: Any) -> Any:
        return metrics.parse_all(values, "metrics")

    @field_validator("metrics")
    @classmethod
    def _columns(cls, values: list[Metric]) -> list[Metric]:
        titles = [metric.title for metric in values]
        for title in titles:
            if title in TAKEN or "_" in title or titles.count(title) > 1:
                raise ValueError(
                    f"no column can be called '{title}': it is taken, or has a '_'; give a label"
                )
        return values

    @field_validator("samplers")
    @classmethod
    def _distinct(cls, values: list[Sampler]) -> list[Sampler]:
        titles = [sampler.title for sampler in values]
        for title in titles:
            if titles.count(title) > 1:
                raise ValueError(f"two samplers are '{title}'; give each a label of its own")
        return values


class DensityConfig(Settings):
    """What a protocol says of densities.

    Attributes:
        steps: gradients of PGD and of TA in the ball of the threat model, 2.5 ε / steps each.
        bins: of the calibration table.
        outside: what test images are told from: `noise`, or data sets.
    """

    steps: Count = 10
    bins: Annotated[int, Field(ge=1, le=1000)] = 15
    outside: list[Literal["noise"] | SerializeAsAny[DataSettings]] = ["noise"]

    @field_validator("outside", mode="before")
    @classmethod
    def _parse(cls, values: Any) -> Any:
        rest = [value for value in values if value != "noise"] if isinstance(values, list) else []
        parsed = iter(datasets.parse_all(rest, "outside"))
        known = isinstance(values, list)
        return [v if v == "noise" else next(parsed) for v in values] if known else values

    @field_validator("outside")
    @classmethod
    def _distinct(cls, values: list[Any]) -> list[Any]:
        titles = [value if isinstance(value, str) else value.title for value in values]
        for value, title in zip(values, titles, strict=True):
            taken = title in ("clean", "pgd", "ta") or (value != "noise" and title == "noise")
            if taken or titles.count(title) > 1:
                raise ValueError(f"the title '{title}' is taken; give the data set an alias")
        return values


class SanityConfig(Settings):
    """What a protocol says of sanity checks (`evaluation.sanity`).

    Attributes:
        images: how many of the attacked images they look at.
        steps: gradients of PGD; five times as many where more of them should not help.
        queries: forward passes of Square.
    """

    images: Count = 128
    steps: Count = 20
    queries: Count = 1000


FACTORS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)


class CurveConfig(Settings):
    """What a protocol says of other radii (`evaluation.curve`).

    Attributes:
        eps: the radii; ¼ to 2 times the threat model's unless given.
        attack: run at each of them, on images that nothing broke at a smaller one.
    """

    eps: Annotated[list[Positive], Field(min_length=1)] | None = None
    attack: Annotated[SerializeAsAny[Attack], attacks.field("pgd")] = Field(
        default_factory=lambda: attacks.parse({"name": "pgd", "steps": 20})
    )

    @field_validator("eps")
    @classmethod
    def _rising(cls, values: list[float] | None) -> list[float] | None:
        if values is not None and sorted(set(values)) != values:
            raise ValueError("the radii must rise")
        return values

    def radii(self, eps: float) -> list[float]:
        """Return the radii for a threat model of radius `eps`, rising."""
        return self.eps or [factor * eps for factor in FACTORS if eps > 0]

"""A protocol: which images are attacked, how, and with what randomness. One YAML file holds one."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from cembench.config import override
from cembench.data import DataSettings, datasets
from cembench.errors import ConfigError
from cembench.evaluation.attacks import Attack, attacks
from cembench.evaluation.extractors import Extractor, extractors
from cembench.files import digest, read_yaml
from cembench.samplers import Sampler, samplers
from cembench.settings import Count, Settings, nearest
from cembench.threat import ThreatChange


class SamplePlan(Settings):
    """What a protocol says of samples.

    Attributes:
        samplers: what is drawn; the first one leads the ranking. One setting serves all rows.
        count: samples of each, and reference images; as many as the reference has unless given,
            and never more.
        extractor: whose features are compared.
        reference: the real images: those that are attacked (`test`), or `train` as in papers.
        batch_size: samples drawn together. The randomness depends on it.
    """

    samplers: Annotated[list[SerializeAsAny[Sampler]], Field(min_length=1)]
    count: Annotated[int, Field(ge=20)] | None = None
    extractor: Annotated[SerializeAsAny[Extractor], extractors.field("lite0")] = Field(
        default_factory=lambda: extractors.parse("lite0")
    )
    reference: Literal["test", "train"] = "test"
    batch_size: Count = 256

    @field_validator("samplers", mode="before")
    @classmethod
    def _parse(cls, values: Any) -> Any:
        return samplers.parse_all(values, "samplers")

    @field_validator("samplers")
    @classmethod
    def _distinct(cls, values: list[Sampler]) -> list[Sampler]:
        titles = [sampler.title for sampler in values]
        for title in titles:
            if titles.count(title) > 1:
                raise ValueError(f"two samplers are '{title}'; give each a label of its own")
        return values


class DensityPlan(Settings):
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


class Protocol(Settings):
    """What is measured, and on which images.

    Attributes:
        split: `test`, or `validation`: the images that training held out, to tune on.
        threat: what differs from the checkpoint's own threat model.
        limit: number of attacked images, a fixed random choice; all of them unless given.
        batch_size: images attacked together. Verdicts depend on it, so it is part of the protocol.
        attacks: what is run, each on every image that is classified correctly.
        samples: what is drawn from the network and compared with real images.
        density: calibration, energies and out-of-distribution scores.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
    description: str = ""
    split: Literal["test", "validation"] = "test"
    threat: ThreatChange = ThreatChange()
    limit: Count | None = None
    batch_size: Count = 256
    seed: Annotated[int, Field(ge=0)] = 0
    attacks: list[SerializeAsAny[Attack]] = []
    samples: SamplePlan | None = None
    density: DensityPlan | None = None

    @field_validator("attacks", mode="before")
    @classmethod
    def _parse(cls, values: Any) -> Any:
        return attacks.parse_all(values, "attacks")

    @field_validator("attacks")
    @classmethod
    def _distinct(cls, values: list[Attack]) -> list[Attack]:
        titles = [attack.title for attack in values]
        for title, attack in zip(titles, values, strict=True):
            reserved = {"clean", "worst_case", *attacks.names()} - {attack.name}
            if titles.count(title) > 1 or title in reserved:
                raise ValueError(f"the label '{title}' is taken; give each attack its own")
        return values

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if not (self.attacks or self.samples or self.density):
            raise ValueError("nothing to measure: give attacks, samples or density")
        return self

    @property
    def digest(self) -> str:
        """Identifies everything that decides verdicts."""
        values = self.dump()
        return digest({key: values[key] for key in values if key not in ("name", "description")})


def shipped() -> list[str]:
    """Return the names of the protocols that come with cembench."""
    folder = files("cembench").joinpath("protocols")
    return sorted(Path(item.name).stem for item in folder.iterdir())


def load_protocol(
    name: str, overrides: Sequence[str] = (), limit: int | None = None, base: Path = Path()
) -> Protocol:
    """Load a shipped protocol by name, or one from a YAML file.

    The name of a protocol that does not ship as it is ends with a part of its digest, so that
    no two protocols share a record.

    Args:
        name: the name, or the path of a file (relative to `base`).
        overrides: `key.inner=value` assignments.
        limit: replaces the protocol's limit, and shows in its name.
        base: the folder that relative paths start from.

    Raises:
        ConfigError: for an unknown name or wrong settings.
    """
    path = base / name
    if name in shipped():
        path = Path(str(files("cembench").joinpath("protocols", f"{name}.yaml")))
    elif path.suffix not in (".yaml", ".yml"):
        raise ConfigError.single(
            f"no protocol '{name}'; {nearest(name, shipped())}; or give a file"
        )
    values = override({"name": path.stem, **read_yaml(path)}, overrides)
    if limit is not None:
        values |= {"limit": limit, "name": f"{values['name']}-n{limit}"}
    try:
        protocol = Protocol.parse(values)
    except ConfigError as error:
        error.source = str(path)
        raise
    if name in shipped() and not overrides:
        return protocol
    return protocol.model_copy(update={"name": f"{protocol.name}-{protocol.digest[:6]}"})

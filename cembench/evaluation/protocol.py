"""A protocol: which images are attacked, how, and with what randomness. One YAML file holds one."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializeAsAny, ValidationInfo, field_validator, model_validator

from cembench.attacks import Attack, attacks
from cembench.energy.threat import ThreatChange
from cembench.evaluation.sections import CurveConfig, DensityConfig, SamplesConfig, SanityConfig
from cembench.models.engine import Engine, Plain, engines
from cembench.util.errors import ConfigError
from cembench.util.files import digest
from cembench.util.overrides import override
from cembench.util.settings import Count, Settings, nearest, optional_field
from cembench.util.yaml import read_yaml


class Protocol(Settings):
    """What is measured, and on which images.

    Attributes:
        name: names the record; that of the file unless given.
        description: for people.
        split: `test`, or `validation`: the images that training held out, to tune on.
        threat: what differs from the checkpoint's own threat model.
        limit: number of attacked images, a fixed random choice; all of them unless given.
        batch_size: images attacked together. Verdicts depend on it, so it is part of the protocol.
        seed: decides the choice of images, random starts and samples.
        attacks: what is run, each on every image that is classified correctly.
        engine: what proposes adversarial images and samples: the network as it is, or a `fast`
            copy. Verdicts are the network's own either way. Under `fast`, `autoattack` becomes
            `autoattack-fast`.
        passes: forward passes whose mean probabilities decide what an image is taken for; more
            than one for networks with random layers.
        samples: what is drawn from the network and compared with real images.
        density: calibration, energies and out-of-distribution scores.
        sanity: whether the network hides its gradients from the attacks.
        curve: robust accuracy at other radii.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
    description: str = ""
    split: Literal["test", "validation"] = "test"
    threat: ThreatChange = ThreatChange()
    limit: Count | None = None
    batch_size: Count = 256
    seed: Annotated[int, Field(ge=0)] = 0
    engine: Annotated[SerializeAsAny[Engine], engines.field()] = optional_field(Plain())
    attacks: list[SerializeAsAny[Attack]] = []
    passes: Count = 1
    samples: SamplesConfig | None = None
    density: DensityConfig | None = None
    sanity: SanityConfig | None = None
    curve: CurveConfig | None = None

    @field_validator("attacks", mode="before")
    @classmethod
    def _parse(cls, values: Any) -> Any:
        return attacks.parse_all(values, "attacks")

    @field_validator("attacks")
    @classmethod
    def _under_engine(cls, values: list[Attack], info: ValidationInfo) -> list[Attack]:
        engine = info.data.get("engine", Plain())
        return [attack.under(engine.name) for attack in values]

    @field_validator("attacks")
    @classmethod
    def _distinct(cls, values: list[Attack]) -> list[Attack]:
        titles = [attack.title for attack in values]
        for title, attack in zip(titles, values, strict=True):
            reserved = {"clean", "worst_case", "curve", *attacks.names()} - {attack.name}
            if titles.count(title) > 1 or title in reserved:
                raise ValueError(f"the label '{title}' is taken; give each attack its own")
        return values

    @model_validator(mode="after")
    def _one_network(self) -> Self:
        if self.passes > 1 and self.engine.name != "plain":
            raise ValueError(
                f"engine {self.engine.name} copies a network that always answers alike; with "
                "passes above 1 leave it plain"
            )
        return self

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        parts = (self.attacks, self.samples, self.density, self.sanity, self.curve)
        if not any(parts):
            raise ValueError("nothing to measure: give attacks, samples, density, sanity or curve")
        return self

    def measured_of(self, kind: Literal["classifier", "encoder"]) -> Protocol | None:
        """Return what is measured of a network: everything, or an encoder's samples, if any."""
        if kind == "classifier":
            return self
        drawn = [] if self.samples is None else self.samples.samplers
        drawn = [sampler for sampler in drawn if sampler.reads != "logits"]
        if self.samples is None or not drawn:
            return None
        plan = self.samples.model_copy(update={"samplers": drawn})
        none: dict[str, Any] = {"attacks": [], "density": None, "sanity": None, "curve": None}
        return self.model_copy(update={**none, "samples": plan})

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
    return parse_protocol(values, limit, str(path), name in shipped() and not overrides)


def parse_protocol(
    values: dict[str, Any], limit: int | None = None, source: str = "protocol", known: bool = False
) -> Protocol:
    """Validate a protocol; unless it is a `known` one, its name gets a part of its digest.

    Raises:
        ConfigError: for wrong settings, blaming `source`.
    """
    values = {"name": "protocol", **values}
    if limit is not None:
        values |= {"limit": limit, "name": f"{values['name']}-n{limit}"}
    try:
        protocol = Protocol.parse(values)
    except ConfigError as error:
        error.source = source
        raise
    if known:
        return protocol
    return protocol.model_copy(update={"name": f"{protocol.name}-{protocol.digest[:6]}"})

"""Protocols: which images are attacked, how, and with what randomness. One YAML file each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, SerializeAsAny, create_model, model_validator

from cembench.attacks import Attack
from cembench.data import DataSettings
from cembench.energy.threat import ThreatChange
from cembench.evaluation.sections import SECTIONS, SETTINGS
from cembench.evaluation.sections.threats import (
    UNION,
    AttackedThreat,
    AttackRun,
    require_suits,
    titled,
)
from cembench.models.engine import Engine, Plain, engines
from cembench.util.errors import ConfigError, blaming
from cembench.util.files import digest
from cembench.util.files.yaml import read_yaml
from cembench.util.overrides import override
from cembench.util.settings import Count, Name, Settings, optional_field
from cembench.util.shipped import find_file, shipped


class Header(Settings):
    """What all sections of a protocol share.

    Attributes:
        name: names the record; that of the file unless given.
        description: for people.
        split: `test`, or `validation`: the images that training held out, to tune on.
        threat: what differs from the checkpoint's own threat model.
        limit: number of attacked images, a fixed random choice; all of them unless given.
        batch_size: images attacked together. Verdicts depend on it, so it is part of the protocol.
        seed: decides the choice of images, random starts and samples.
        engine: what proposes adversarial images and samples: the network as it is, or a `fast`
            copy. Verdicts are the network's own either way. Under `fast`, `autoattack` becomes
            `autoattack-fast`.
        passes: forward passes whose mean probabilities decide what an image is taken for; more
            than one for networks with random layers.
    """

    name: Name
    description: str = ""
    split: Literal["test", "validation"] = "test"
    threat: ThreatChange = ThreatChange()
    limit: Count | None = None
    batch_size: Count = 256
    seed: Annotated[int, Field(ge=0)] = 0
    engine: Annotated[SerializeAsAny[Engine], engines.field()] = optional_field(Plain())
    passes: Count = 1


if TYPE_CHECKING:

    class Base(Header):
        """The keys of sections are those of `cembench.evaluation.sections`."""

        def __getattr__(self, key: str) -> Any: ...

else:
    Base = create_model("Base", __base__=Header, **SETTINGS)


class Protocol(Base):
    """What is measured, and on which images: the shared keys, and one for each section.

    `attacks`, `threats`, `minimal`, `samples`, `density`, `sanity`, `curve`, `counterfactuals`,
    `corruptions` and `certify` are the sections.
    """

    @model_validator(mode="after")
    def _under_engine(self) -> Self:
        attacks = [attack.under(self.engine.name) for attack in self.attacks]
        threats = [threat.with_engine(self.engine.name) for threat in self.threats]
        if attacks == self.attacks and threats == self.threats:
            return self
        return self.model_copy(update={"attacks": attacks, "threats": threats})

    @model_validator(mode="after")
    def _first_threat(self) -> Self:
        if not self.threats:
            return self
        first, given = self.threats[0].model, self.threat
        if given.norm not in (None, first.norm) or given.eps not in (None, first.eps):
            text = f"threats begins with {first}, which is the threat model of the record; leave"
            raise ConfigError.single(f"{text} it out", "threat")
        if not self.attacks:
            raise ConfigError.single("no attack is run under these; give attacks", "threats")
        if UNION in [run.title for run in self.runs]:
            raise ConfigError.single(f"the label '{UNION}' is taken by threats", "attacks")
        for run in self.runs:
            require_suits(run.attack, run.threat or first, run.threat is not None)
        for threat in self.threats if self.curve else []:
            require_suits(self.curve.attack, threat)
        return self.model_copy(update={"threat": ThreatChange(norm=first.norm, eps=first.eps)})

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
        if not any(section.config(self) for section in SECTIONS):
            keys = ", ".join(section.key for section in SECTIONS)
            raise ValueError(f"nothing to measure: give one of {keys}")
        return self

    def measured_of(self, kind: Literal["classifier", "encoder"]) -> Protocol | None:
        """Return what is measured of a network: everything, or an encoder's samples, if any."""
        if kind == "classifier":
            return self
        left = {s.key: s.for_encoder(s.config(self)) for s in SECTIONS}
        return self.model_copy(update=left) if any(left.values()) else None

    def without(self, key: str) -> Protocol | None:
        """Return what is left without a section, if anything."""
        default = {s.key: s.setting[1] for s in SECTIONS}[key]
        left = self.model_copy(update={key: default})
        return left if any(section.config(left) for section in SECTIONS) else None

    def under(self, threat: AttackedThreat) -> Protocol:
        """Return the protocol under one of its threat models alone.

        Radii of the curve that were given are the first one's, others have multiples of their own;
        attacks that minimise another norm are left to the first one too.
        """
        if threat.slug == self.threats[0].slug:
            return self.model_copy(update={"threats": []})
        curve = self.curve and self.curve.model_copy(update={"eps": None})
        attacks = threat.attacks
        if attacks is None:
            attacks = [one for one in self.attacks if one.minimises in (None, threat.norm)]
        change = ThreatChange(norm=threat.norm, eps=threat.eps)
        return self.model_copy(
            update={"threat": change, "threats": [], "attacks": attacks, "curve": curve}
        )

    @property
    def runs(self) -> list[AttackRun]:
        """All attacks, under all threat models; the record's comes first."""
        return [AttackRun(attack.title, attack, None) for attack in self.attacks] + [
            AttackRun(titled(threat.slug, attack.title), attack, threat.model)
            for threat in self.threats[1:]
            for attack in self.under(threat).attacks
        ]

    @property
    def every_attack(self) -> list[Attack]:
        """The attacks of all sections."""
        curve = [] if self.curve is None else [self.curve.attack]
        return [*(run.attack for run in self.runs), *curve]

    @property
    def libraries(self) -> list[str]:
        """The optional packages whose versions decide figures."""
        return sorted(frozenset().union(*(attack.libraries for attack in self.every_attack)))

    @property
    def makes_images(self) -> bool:
        """Whether images are made besides adversarial ones: samples or counterfactuals."""
        return self.samples is not None or self.counterfactuals is not None

    @property
    def other_data(self) -> list[DataSettings]:
        """The data sets whose images it reads besides those of the checkpoint."""
        samplers = [] if self.samples is None else self.samples.samplers
        drawn = [getattr(sampler, "outside", None) for sampler in samplers]
        others = [*([] if self.density is None else self.density.outside), *drawn]
        return [other for other in others if isinstance(other, DataSettings)]

    @property
    def deciding(self) -> dict[str, Any]:
        """The settings that decide verdicts: all but name and description, as plain values."""
        values = self.dump()
        return {key: values[key] for key in values if key not in ("name", "description")}

    @property
    def digest(self) -> str:
        """Identifies everything that decides verdicts."""
        return digest(self.deciding)


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
    path = find_file("protocol", name, base)
    values = override({"name": path.stem, **read_yaml(path)}, overrides)
    return parse_protocol(values, limit, str(path), name in shipped("protocol") and not overrides)


def parse_protocol(
    values: dict[str, Any], limit: int | None = None, source: str = "protocol", known: bool = False
) -> Protocol:
    """Validate a protocol; unless it is a `known` one, its name gets a part of its digest.

    Raises:
        ConfigError: for wrong settings, blaming `source`.
        CembenchError: for an attack whose package is missing.
    """
    values = {"name": "protocol", **values}
    if limit is not None:
        values |= {"limit": limit, "name": f"{values['name']}-n{limit}"}
    with blaming(source):
        protocol = Protocol.parse(values)
        for attack in protocol.every_attack:
            attack.require_installed()
    if known:
        return protocol
    return protocol.model_copy(update={"name": f"{protocol.name}-{protocol.digest[:6]}"})

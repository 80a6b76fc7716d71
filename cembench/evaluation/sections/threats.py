"""Several threat models: accuracy under each, and on the images that survive all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BeforeValidator, model_validator

from cembench.attacks import Attack
from cembench.energy.norms import NORMS
from cembench.energy.threat import Threat, threat_values
from cembench.evaluation.diff import Comparison, compared
from cembench.evaluation.section import Section
from cembench.evaluation.sections.curve import CAPTION, CurvePoint, lines
from cembench.evaluation.sections.robustness import Attacks, Figure, RobustnessSection
from cembench.util.display.charts import Chart, Table
from cembench.util.errors import CembenchError, ConfigError
from cembench.util.settings import Settings, optional_field

UNION = "union"
CLOCK = ("seconds", "stage_seconds")  # wall times, which nothing computes again


class AttackedThreat(Threat):
    """A threat model of several (`threats` in a protocol), as settings or as text: `l2 0.5`.

    Attributes:
        attacks: what is run under it; the attacks of the protocol unless given, but for those that
            minimise another norm. Those of the first threat model are always the protocol's.
    """

    attacks: Attacks | None = optional_field(None)

    @model_validator(mode="after")
    def _possible(self) -> AttackedThreat:
        self.ball.require_below_diameter()
        return self

    @property
    def model(self) -> Threat:
        """The threat model alone."""
        return Threat(norm=self.norm, eps=self.eps)

    def with_engine(self, engine: str) -> AttackedThreat:
        """Return it with the attacks to run under an engine."""
        if self.attacks is None:
            return self
        attacks = [attack.under(engine) for attack in self.attacks]
        return self.model_copy(update={"attacks": attacks})


class AttackRun(NamedTuple):
    """An attack under one of the threat models of a protocol.

    Attributes:
        title: the name of its columns: `pgd`, or `l2-0.5 pgd` under another threat model than that
            of the record.
        attack: the attack.
        threat: the threat model; None for that of the record.
    """

    title: str
    attack: Attack
    threat: Threat | None

    def minimises_another(self, norm: str | None) -> bool:
        """Whether it has no verdicts, since it minimises another norm than its threat model's.

        Args:
            norm: of the threat model of the record.
        """
        own = norm if self.threat is None else self.threat.norm
        return self.attack.on == "all" and self.attack.minimises not in (None, own)


class UnderThreat(Settings):
    """Figures under one of several threat models.

    Attributes:
        norm: of the perturbation.
        eps: its largest size, in pixels on [0, 1].
        figures: accuracy under each attack by its title, and `worst_case`; empty where no attack
            applies to the network.
        seconds: wall time of the attacks.
        curve: accuracy over the radius, if the protocol asks for it; that of the first threat
            model stands under `curve` in the record.
    """

    norm: str
    eps: float
    figures: dict[str, Figure]
    seconds: float = 0.0
    curve: list[CurvePoint] = optional_field([])

    @property
    def threat(self) -> Threat:
        """The threat model."""
        return Threat(norm=self.norm, eps=self.eps)


class Threats(Settings):
    """Accuracy under several threat models.

    Attributes:
        under: figures by the name of the threat model, such as `l2-0.5` or `linf-8_255`; the first
            one is that of the record.
        union: images that survive every attack under every threat model; None where no attack
            applies under one of them.
    """

    under: dict[str, UnderThreat]
    union: Figure | None

    @property
    def figures(self) -> dict[str, Figure]:
        """The figures that only several threat models have: all but those of the first, by title.

        They are named as the columns of the table of verdicts are, and `union`.
        """
        found = {
            titled(name, attack): figure
            for name, one in list(self.under.items())[1:]
            for attack, figure in one.figures.items()
        }
        return found if self.union is None else {**found, UNION: self.union}


def titled(threat: str, name: str) -> str:
    """Return what an attack or figure is called under a threat model; none is that of the record.

    No label of an attack has a blank, so `l2-0.5 pgd` is never another attack.
    """
    return f"{threat} {name}" if threat else name


def threat_of(title: str) -> str:
    """Return the threat model in a title that `titled` made; empty for that of the record."""
    threat, _, name = title.partition(" ")
    return threat if name and threat.partition("-")[0] in NORMS else ""


def require_suits(attack: Attack, threat: Threat, counts: bool = True) -> None:
    """Refuse an attack that does not know the norm of a threat model.

    Args:
        attack: the attack.
        threat: the threat model.
        counts: whether it is refused also where it minimises another norm.

    Raises:
        ConfigError: naming those that know it, and the remedy.
    """
    try:
        attack.require_norm(threat.norm)
    except CembenchError as error:
        text = f"{error}; or give {threat} attacks of its own"
        raise ConfigError.single(text, "threats") from error
    if counts and attack.minimises not in (None, threat.norm):
        text = f"{attack.title} minimises {attack.minimises}; leave it out under {threat}"
        raise ConfigError.single(text, "threats")


def combined(titles: Iterable[str]) -> dict[str, list[str]]:
    """Return the figures of attacks, each with the attacks that an image must survive for it.

    These are the attacks one by one, `worst_case` of each threat model, and `union` of several.

    Args:
        titles: of the attacks, as in the table of verdicts.
    """
    groups: dict[str, list[str]] = {}
    for title in titles:
        groups.setdefault(threat_of(title), []).append(title)
    found: dict[str, list[str]] = {}
    for threat, own in groups.items():
        found |= {title: [title] for title in own} | {titled(threat, "worst_case"): own}
    everything = [title for own in groups.values() for title in own]
    return {**found, UNION: everything} if len(groups) > 1 else found


def _listed(values: Any) -> Any:
    """Turn the text `linf 8/255, l2 0.5` into a list, and each text in it into settings."""
    if isinstance(values, str):
        values = [part for part in values.split(",") if part.strip()]
    if not isinstance(values, list | tuple):
        return values
    return [threat_values(one) if isinstance(one, str) else one for one in values]


def _several(values: list[AttackedThreat]) -> list[AttackedThreat]:
    if len(values) == 1:
        raise ValueError("give two threat models or more; a single one is `threat`")
    names = [one.slug for one in values]
    for number, name in enumerate(names):
        if name in names[:number]:
            raise ConfigError.single(f"{values[number]} is given twice", str(number))
    if values and values[0].attacks is not None:
        raise ConfigError.single("those of the first one are the protocol's", "0", "attacks")
    return values


Several = Annotated[list[AttackedThreat], BeforeValidator(_listed), AfterValidator(_several)]


class ThreatsSection(Section[list[AttackedThreat], Threats | None]):
    """The attacks of the protocol under several threat models, and their union image by image.

    The first one is the threat model of the record, whatever the checkpoint was trained against.
    """

    key = "threats"
    setting = (Several, [])
    result_key = "threats"
    result = (Threats | None, None)
    optional = True

    def compare(self, recorded: Threats | None, again: Threats | None) -> list[Comparison]:
        """Compare all values but wall times."""
        return compared(self.result_key, _untimed(recorded), _untimed(again), ("worst_class",))

    def columns(self, result: Threats | None) -> dict[str, Any]:
        """Return each accuracy under the other threat models, and of the union."""
        return {} if result is None else RobustnessSection().columns(result.figures)

    def panels(self, records: Mapping[str, Any]) -> list[Chart]:
        """Return accuracy over the radius under the other threat models, a panel each."""
        known = {run: record.threats.under for run, record in records.items() if record.threats}
        first: dict[str, UnderThreat] = next(iter(known.values()), {})
        panels = [
            lines({run: under[name].curve for run, under in known.items()}, one.eps, name)
            for name, one in list(first.items())[1:]
            if any(under[name].curve for under in known.values())
        ]
        heading = "Accuracy over ε under further threat models"
        return [Chart("threat-curves", heading, CAPTION, panels, len(panels))] if panels else []

    def details(self, result: Threats | None) -> list[Table]:
        """Return the table of accuracies under each threat model, and of the union."""
        if result is None:
            return []
        found = {titled(n, a): f for n, one in result.under.items() for a, f in one.figures.items()}
        found |= {} if result.union is None else {UNION: result.union}
        tables = RobustnessSection().details(found)
        return [replace(table, title="Accuracy under several threat models") for table in tables]


def _untimed(values: Any) -> Any:
    """Return plain values without wall times, at any depth."""
    plain = values.dump() if isinstance(values, Settings) else values
    if not isinstance(plain, dict):
        return plain
    return {key: _untimed(value) for key, value in plain.items() if key not in CLOCK}

"""Cascade: attacks from cheap to dear, each on the images that the ones before it left."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import SerializeAsAny, model_validator

from cembench.attacks import Attack, Propose, Target, attacks
from cembench.attacks.autoattack_fast import FastAutoAttack
from cembench.util.settings import optional_field

FAST = ("apgd-ce", "apgd-dlr", "apgd-t")  # what `autoattack-fast` has besides FAB and Square
OneAttack = Annotated[SerializeAsAny[Attack], attacks.field()]


class Cascade(Attack):
    """Attacks in turn, as one: its accuracy is that under all of them together.

    The record says how many images each stage was the first to succeed on, and how long it took, so
    one sees what the dear ones added. It is not AutoAttack, and has a column of its own.

    Attributes:
        attacks: the cheapest first. Unless given, APGD-CE and targeted APGD, as in
            `autoattack-fast`: AutoAttack without FAB and Square.

    Examples:
        >>> import torch
        >>> from cembench.attacks import Target
        >>> from cembench.energy.threat import Threat
        >>> _ = torch.manual_seed(0)
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4))
        >>> target = Target.of(net, Threat(norm="linf", eps=0.3), classes=4)
        >>> [name for name, _ in Cascade().stages(target)]
        ['apgd-ce', 'apgd-t']
        >>> cascade = Cascade.parse({"attacks": [{"name": "pgd", "steps": 10}, "autoattack-fast"]})
        >>> [name for name, _ in cascade.stages(target)][:3]
        ['pgd', 'autoattack-fast apgd-ce', 'autoattack-fast apgd-t']
    """

    name: ClassVar[str] = "cascade"
    attacks: list[OneAttack] = optional_field([])

    @model_validator(mode="after")
    def _honest(self) -> Self:
        if (self.label or "").startswith("autoattack"):
            raise ValueError(f"the label '{self.label}' is taken: a cascade is not AutoAttack")
        titles = [attack.own_title for attack in self.attacks]
        for title, attack in zip(titles, self.attacks, strict=True):
            if titles.count(title) > 1:
                raise ValueError(f"the label '{title}' is taken; give each attack its own")
            if attack.sampling is not None:
                raise ValueError(f"{title}: a cascade attacks all survivors; leave out sample")
        return self

    @property
    def black_box(self) -> frozenset[str] | None:
        """The black-box stages of its attacks; None where nobody knows those of one."""
        found: set[str] = set()
        for attack in self.attacks:
            if (known := attack.black_box) is None:
                return None
            found |= {_named(attack, stage) for stage in known}
        return frozenset(found)

    @property
    def inner(self) -> list[Attack]:
        """Its attacks."""
        return self.attacks

    @property
    def norms(self) -> frozenset[str] | None:
        """The norms that all of its attacks know."""
        known = [attack.norms for attack in self.attacks or [FastAutoAttack()]]
        limited = [norms for norms in known if norms is not None]
        return frozenset.intersection(*limited) if limited else None

    def under(self, engine: str) -> Attack:
        """Return the cascade of its attacks under an engine."""
        found = [attack.under(engine) for attack in self.attacks]
        return self if found == self.attacks else self.model_copy(update={"attacks": found})

    def stages(self, target: Target) -> list[tuple[str, Propose]]:
        """Return the stages of all attacks, in turn."""
        if not self.attacks:
            return [(name, run) for name, run in FastAutoAttack().stages(target) if name in FAST]
        return [
            (_named(attack, name), propose)
            for attack in self.attacks
            for name, propose in attack.stages(target)
        ]


def _named(attack: Attack, stage: str) -> str:
    """Return the name of a stage of one of several attacks."""
    title = attack.own_title
    return title if stage in (title, attack.title) else f"{title} {stage}"

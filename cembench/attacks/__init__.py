"""Attacks by name. An attack only proposes images; `evaluation.verify` decides what counts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cembench.energy.threat import Threat
from cembench.util.registry import Registry
from cembench.util.settings import Choice, Label, optional_field

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cembench.attacks.verdict import CheckedModel

Propose = Callable[["Tensor", "Tensor"], "Tensor"]


@dataclass(frozen=True)
class Target:
    """What an attack faces: a frozen network in evaluation mode, and the rules.

    The global generators are seeded with `seed` before each stage and restored after it.

    Attributes:
        model: what is attacked: the network as it is, or a faster copy.
        plain: the network as it is.
        judge: what decides: the network as it is, or its average over several passes.
        room: how many images may go through the network together.
    """

    model: CheckedModel
    plain: CheckedModel
    judge: nn.Module
    threat: Threat
    classes: int
    seed: int
    room: int = 256

    def require_finite(self, where: str) -> None:
        """Refuse a network that returned NaN or infinity since the last call.

        Raises:
            ModelError: saying where.
        """
        for model in (self.model, self.plain):
            model.require_finite(where)


class Attack(Choice):
    """An attack of a protocol.

    Attributes:
        label: its name in tables; the name of the attack unless given.
        on: `all` images, so that its figure is its own; or the `survivors` of the attacks before
            it, which is cheaper. Its figure is then that of all of them together, and its name
            ends in `-rest`.
    """

    label: Label | None = None
    on: Literal["all", "survivors"] = optional_field("all")

    @property
    def title(self) -> str:
        """Its name in tables."""
        return self.own_title + ("-rest" if self.on == "survivors" else "")

    @property
    def own_title(self) -> str:
        """The label, or what stands for it."""
        return self.label or self.name

    def under(self, engine: str) -> Attack:
        """Return what takes its place under an engine: itself, unless it is official code."""
        return self

    @abstractmethod
    def stages(self, target: Target) -> list[tuple[str, Propose]]:
        """Return the attack as named functions from images and labels to proposed images.

        Each stage gets the images that survived the stages before it.
        """


attacks: Registry[Attack] = Registry(
    "attack",
    Attack,
    {
        "pgd": "cembench.attacks.pgd:PGDAttack",
        "torchattacks": "cembench.attacks.torchattacks:TorchattacksAttack",
        "autoattack": "cembench.attacks.autoattack:AutoAttack",
        "autoattack-fast": "cembench.attacks.autoattack_fast:FastAutoAttack",
    },
)

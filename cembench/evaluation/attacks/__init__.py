"""Attacks by name. An attack only proposes images; `evaluation.verify` decides what counts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cembench.registry import Registry
from cembench.settings import Choice, Label
from cembench.threat import Threat

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cembench.evaluation.verify import Watched

Propose = Callable[["Tensor", "Tensor"], "Tensor"]


@dataclass(frozen=True)
class Target:
    """What an attack faces: a frozen network in evaluation mode, and the rules.

    The global generators are seeded with `seed` before each stage and restored after it.

    Attributes:
        model: what is attacked.
        judge: what decides: the same network, or its average over several passes.
    """

    model: Watched
    judge: nn.Module
    threat: Threat
    classes: int
    seed: int


class Attack(Choice):
    """An attack of a protocol.

    Attributes:
        label: its name in tables; the name of the attack unless given.
    """

    label: Label | None = None

    @property
    def title(self) -> str:
        """The label, or what stands for it."""
        return self.label or self.name

    @abstractmethod
    def stages(self, target: Target) -> list[tuple[str, Propose]]:
        """Return the attack as named functions from images and labels to proposed images.

        Each stage gets the images that survived the stages before it.
        """


attacks: Registry[Attack] = Registry(
    "attack",
    Attack,
    {
        "pgd": "cembench.evaluation.attacks.pgd:PGDAttack",
        "torchattacks": "cembench.evaluation.attacks.torchattacks:TorchattacksAttack",
        "autoattack": "cembench.evaluation.attacks.autoattack:AutoAttack",
    },
)

"""Adversarial contrastive learning (Jiang et al., arXiv 2010.13337): InfoNCE on attacked views.

Adversarial training without labels: views are attacked by PGD on InfoNCE (arXiv 2006.07589) inside
the ball of the threat model, and the encoder trainable from what comes out.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import SerializeAsAny, model_validator
from torch import Tensor, nn

from cembench.energy.similarity import Pairs, partners
from cembench.methods.adversarial import InnerAttack
from cembench.methods.contrastive import Contrastive, beside, nt_xent
from cembench.models.blocks import clean_branch
from cembench.samplers import Sampler, Scene, samplers
from cembench.samplers.pgd import PGD


class AdvInfoNCE(InnerAttack, Contrastive):
    """Minimise NT-Xent between attacked views, between an attacked and a clean one, or both.

    With `norm: dual` clean views go through a batch norm of their own.

    Attributes:
        stream: `a2a` attacks both views together; `a2s` one of them, away from the clean other one;
            `dual` is the mean of `a2a` and of NT-Xent on the clean views.
        negatives: what attacks.
    """

    name: ClassVar[str] = "adv-infonce"
    stream: Literal["dual", "a2a", "a2s"] = "dual"
    negatives: Annotated[SerializeAsAny[Sampler], samplers.field("pgd")] = PGD()

    @model_validator(mode="after")
    def _attacks(self) -> Self:
        if not self.negatives.in_ball:
            raise ValueError(
                f"negatives: {self.negatives.name} leaves the ball, so what it makes is no view "
                "of the image; take pgd or trades"
            )
        return self

    def loss(
        self, model: nn.Module, x: Tensor, y: Tensor, scene: Scene
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, and its attacked and clean parts where there are two."""
        first, second = self.views.pair(x)
        if self.stream == "a2s":
            moved = self._away(model, first, second, scene)
            with clean_branch(model):
                clean = model(second)
            return nt_xent(torch.cat([model(moved), clean]), self.temperature), {}
        both = torch.cat([first, second])
        attacked = nt_xent(model(self._apart(model, both, scene)), self.temperature)
        if self.stream == "a2a":
            return attacked, {}
        with clean_branch(model):
            natural = nt_xent(model(both), self.temperature)
        return (attacked + natural) / 2, {
            "attacked": attacked.detach(),
            "clean": natural.detach(),
        }

    def _apart(self, model: nn.Module, both: Tensor, scene: Scene) -> Tensor:
        """Return both views, attacked together."""
        target = partners(len(both) // 2, both.device)
        pairs = Pairs(model, self.temperature)
        return self.negatives.draw(pairs, both, torch.zeros_like(target), scene, target)

    def _away(self, model: nn.Module, first: Tensor, second: Tensor, scene: Scene) -> Tensor:
        """Return the first views, attacked while the second ones stay."""
        with clean_branch(model):
            classifier = beside(model, second, self.temperature, self.negatives)
        target = torch.arange(len(first), device=first.device)
        return self.negatives.draw(classifier, first, torch.zeros_like(target), scene, target)

    def cost(self, scene: Scene) -> int:
        """Gradients of the attacked views and of the weights, for both views of an image."""
        steps, views = self.negatives.steps, {"a2s": 1, "a2a": 2, "dual": 2}[self.stream]
        return steps * views + (4 if self.stream == "dual" else 2)

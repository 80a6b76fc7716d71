"""Adversarial training (Madry et al., arXiv 1706.06083): the contrastive half of a likelihood.

CEM (arXiv 2203.13455): with negatives from the model, the gradient of CE(x̂, y) is the
contrastive part of the gradient of log p(x, y); `negatives` says where they come from.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import SerializeAsAny
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from cembench.methods.adversarial import Adversarial
from cembench.samplers import Sampler, Scene, samplers
from cembench.samplers.pgd import PGD


class AT(Adversarial):
    """Minimise CE(x̂, y). One step from a uniform start is Fast-AT (arXiv 2001.03994).

    Attributes:
        negatives: where x̂ comes from.
    """

    name: ClassVar[str] = "at"
    negatives: Annotated[SerializeAsAny[Sampler], samplers.field("pgd")] = PGD()

    def loss(
        self, model: nn.Module, x: Tensor, y: Tensor, scene: Scene
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the cross-entropy on the negatives."""
        negative = self.negatives.draw(model, x, y, scene)
        return cross_entropy(model(negative), y, label_smoothing=self.label_smoothing), {}

    def cost(self, scene: Scene) -> int:
        """The sampler's steps and the weights' gradient."""
        return self.negatives.steps + 1

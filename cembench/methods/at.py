"""Adversarial training (Madry et al., arXiv 1706.06083): cross-entropy on perturbed images.

CEM (arXiv 2203.13455): for negatives x̂ drawn from the model, the gradient of CE(x̂, y) is the
contrastive part of the gradient of log p(x, y).
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import SerializeAsAny
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from cembench.methods.adversarial import Adversarial
from cembench.samplers import Sampler, SamplerContext, samplers
from cembench.samplers.pgd import PGD


class AT(Adversarial):
    """Minimise CE(x̂, y). PGD with one step from a uniform start is Fast-AT (arXiv 2001.03994).

    Attributes:
        negatives: sampler of x̂.
    """

    name: ClassVar[str] = "at"
    negatives: Annotated[SerializeAsAny[Sampler], samplers.field("pgd")] = PGD()

    def loss(
        self, model: nn.Module, x: Tensor, y: Tensor, context: SamplerContext
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the cross-entropy on the negatives."""
        negative = self.negatives.draw(model, x, y, context)
        return cross_entropy(model(negative), y, label_smoothing=self.label_smoothing), {}

    def cost(self, context: SamplerContext) -> int:
        """Steps of the sampler, and the gradient of the weights."""
        return self.negatives.steps + 1

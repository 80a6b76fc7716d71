"""TRADES (Zhang et al., arXiv 1901.08573): clean accuracy plus β times local smoothness."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import SerializeAsAny
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div

from cembench.methods.adversarial import Adversarial
from cembench.samplers import Sampler, Scene, samplers
from cembench.samplers.pgd import TRADES
from cembench.util.settings import NonNegative


class Trades(Adversarial):
    """Minimise CE(x, y) + β·KL(p(·|x) ‖ p(·|x̂)), the divergence in the direction of its code.

    Attributes:
        beta: β, the weight of the divergence.
        negatives: where x̂ comes from.
    """

    name: ClassVar[str] = "trades"
    beta: NonNegative = 6.0
    negatives: Annotated[SerializeAsAny[Sampler], samplers.field("trades")] = TRADES()

    def loss(
        self, model: nn.Module, x: Tensor, y: Tensor, scene: Scene
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the sum, and both terms."""
        negative = self.negatives.draw(model, x, y, scene)
        logits, moved = model(x).float(), model(negative).float()
        natural = cross_entropy(logits, y, label_smoothing=self.label_smoothing)
        clean, away = logits.log_softmax(1), moved.log_softmax(1)
        robust = kl_div(away, clean, reduction="batchmean", log_target=True)
        parts = {"natural": natural.detach(), "robust": robust.detach()}
        return natural + self.beta * robust, parts

    def cost(self, scene: Scene) -> int:
        """The sampler's steps and the weights' gradient through two batches."""
        return self.negatives.steps + 2

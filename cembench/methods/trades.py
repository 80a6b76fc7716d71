"""TRADES (Zhang et al., arXiv 1901.08573): cross-entropy plus β times local smoothness."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import SerializeAsAny

from cembench.methods.adversarial import Adversarial
from cembench.samplers import Sampler, SamplerContext, samplers
from cembench.samplers.pgd import TRADES
from cembench.util.lazy import lazy_imports
from cembench.util.settings import NonNegative

with lazy_imports():
    from torch import Tensor, nn
    from torch.nn.functional import cross_entropy, kl_div


class Trades(Adversarial):
    """Minimise CE(x, y) + β·KL(p(·|x) ‖ p(·|x̂)), the direction of the authors' code.

    Attributes:
        beta: β, the weight of the divergence.
        negatives: sampler of x̂.

    Examples:
        Both terms are logged:

        >>> import torch
        >>> from cembench.energy.threat import Threat
        >>> from cembench.methods import methods
        >>> from cembench.samplers import SamplerContext
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
        >>> x, y = torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])
        >>> context = SamplerContext(Threat(norm="linf", eps=0.1), torch.Generator())
        >>> method = methods.parse({"name": "trades", "beta": 2})
        >>> loss, parts = method.objective(model, x, y, context)
        >>> torch.allclose(loss, parts["natural"] + 2 * parts["robust"])
        True
    """

    name: ClassVar[str] = "trades"
    beta: NonNegative = 6.0
    negatives: Annotated[SerializeAsAny[Sampler], samplers.field("trades")] = TRADES()

    def loss(
        self, model: nn.Module, images: dict[str, Tensor], y: Tensor, context: SamplerContext
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, and its two terms."""
        logits, moved = model(images["x"]).float(), model(images["attacked"]).float()
        natural = cross_entropy(logits, y, label_smoothing=self.label_smoothing)
        robust = divergence(logits, moved)
        parts = {"natural": natural.detach(), "robust": robust.detach()}
        return natural + self.beta * robust, parts

    def loss_cost(self, context: SamplerContext) -> int:
        """Gradients of the weights on two batches."""
        return 2


def divergence(logits: Tensor, moved: Tensor) -> Tensor:
    """Return the mean KL(p(·|x) ‖ p(·|x̂)) over images, of logits f(x) and f(x̂), N×K."""
    clean, away = logits.log_softmax(1), moved.log_softmax(1)
    return kl_div(away, clean, reduction="batchmean", log_target=True)

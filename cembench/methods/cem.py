"""CEM (arXiv 2203.13455): both parts of the likelihood gradient, with a weight between them.

∇ log p(x, y) = E[∇f(x, y) − ∇f(x̂, y)] (consistency) + E[∇f(x̂, y) − ∇f(x̂, ŷ)] (contrastive); the
contrastive part is minus the gradient of CE(x̂, y), the loss of adversarial training.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from cembench import energy
from cembench.methods.adversarial import Adversarial
from cembench.samplers import SamplerContext
from cembench.util.lazy import lazy_imports
from cembench.util.settings import NonNegative

with lazy_imports():
    import torch
    from torch import Tensor, nn
    from torch.nn.functional import cosine_similarity, cross_entropy


class CEM(Adversarial):
    """Minimise CE(x̂, y) + λ·(f(x̂, y) − f(x, y)) + energy_l2·(LSE(x)² + LSE(x̂)²).

    λ = 0 without regulariser is AT; λ = 1 is JEM at γ = 1. In between the negatives must belong
    to (x, y): they start from x, or are drawn for class y.

    Attributes:
        consistency: λ, the weight of the consistency part.
        energy_l2: weight of the mean LSE² on data and negatives; without it the consistency part is
            unbounded.
        log_gradients: whether norms and cosine of the two parts' gradients are logged, which costs
            three gradients more.

    Examples:
        Without consistency part and regulariser it is adversarial training:

        >>> import torch
        >>> from cembench.energy.threat import Threat
        >>> from cembench.methods import methods
        >>> from cembench.samplers import SamplerContext
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
        >>> x, y = torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])
        >>> context = SamplerContext(Threat(norm="linf", eps=0.1), torch.Generator())
        >>> again = SamplerContext(context.threat, torch.Generator())
        >>> cem = methods.parse({"name": "cem", "consistency": 0, "energy_l2": 0})
        >>> loss, parts = cem.objective(model, x, y, context)
        >>> bool(loss == parts["contrastive"])
        True
        >>> torch.equal(loss, methods.parse("at").objective(model, x, y, again)[0])
        True
    """

    name: ClassVar[str] = "cem"
    on_divergence: ClassVar[Literal["stop", "rollback"]] = "rollback"
    consistency: NonNegative = 1.0
    energy_l2: NonNegative = 0.01
    log_gradients: bool = True

    @model_validator(mode="after")
    def _paired(self) -> Self:
        if self.consistency != 1 and not self.negatives.paired_with_data:
            raise ValueError(
                f"negatives of '{self.negatives.name}' do not belong to (x, y), "
                "which is right at consistency: 1 alone; start them from data"
            )
        return self

    def loss(
        self, model: nn.Module, images: dict[str, Tensor], y: Tensor, context: SamplerContext
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, and its parts."""
        logits, away = model(images["x"]).float(), model(images["attacked"]).float()
        contrastive = cross_entropy(away, y, label_smoothing=self.label_smoothing)
        consistency = -energy.consistency(logits, away, y).mean()
        square = energy.marginal(logits).square().mean() + energy.marginal(away).square().mean()
        loss = contrastive + self.consistency * consistency + self.energy_l2 * square
        parts = {
            "contrastive": contrastive.detach(),
            "consistency": consistency.detach(),
            "lse_data": energy.marginal(logits).mean().detach(),
            "lse_negatives": energy.marginal(away).mean().detach(),
        }
        if self.log_gradients:
            parts |= _gradients(model, contrastive, consistency)
        return loss, parts

    def loss_cost(self, context: SamplerContext) -> int:
        """Gradients of the weights on two batches, and those logged."""
        return 2 + 3 * self.log_gradients


def _gradients(model: nn.Module, contrastive: Tensor, consistency: Tensor) -> dict[str, Tensor]:
    weights = [p for p in model.parameters() if p.requires_grad]
    flat = [
        torch.cat([g.flatten() for g in torch.autograd.grad(part, weights, retain_graph=True)])
        for part in (contrastive, consistency)
    ]
    return {
        "contrastive_gradient": flat[0].norm(),
        "consistency_gradient": flat[1].norm(),
        "cosine": cosine_similarity(flat[0], flat[1], dim=0),
    }

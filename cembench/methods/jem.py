"""JEM (Grathwohl et al., arXiv 1912.03263): cross-entropy, and the likelihood of the data.

With `negatives: sgld` it is JEM; with `pgd` it is the CEM variant (arXiv 2203.13455) in which PGD
replaces SGLD; any other sampler works too.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import SerializeAsAny

from cembench import energy
from cembench.methods.density import Density
from cembench.samplers import Sampler, SamplerContext, samplers
from cembench.samplers.logits import SGLD
from cembench.util.lazy import lazy_imports
from cembench.util.settings import NonNegative

with lazy_imports():
    import torch
    from torch import Tensor, nn
    from torch.nn.functional import cross_entropy


class JEM(Density):
    """Minimise CE(x, y) − γ·(LSE(x) − LSE(x̂)), and optional regularisers.

    With `own_batch` it is CE(x, y) − γ·(LSE(x′) − LSE(x̂)), where x′ are other images, not
    augmented. That is SADA-JEM (arXiv 2209.07959) at weights that adaptive SAM moved:
    `weights: {name: sam, rho: 2, adaptive: true}`. Its code also bounds the gradient of each pixel
    in the chains of x̂, which is not built.

    Attributes:
        gamma: γ, the weight of log p(x).
        energy_l2: weight of the mean LSE² on data and negatives, which keeps energies bounded.
        gradient_penalty: weight of the mean squared norm of ∇ₓ LSE on the data.
        negatives: sampler of x̂.

    Examples:
        Cross-entropy and energies are logged. Chains start from the data here, not from a buffer:

        >>> import torch
        >>> from cembench.energy.threat import Threat
        >>> from cembench.methods import methods
        >>> from cembench.samplers import SamplerContext
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
        >>> x, y = torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])
        >>> context = SamplerContext(Threat(norm="linf", eps=0.1), torch.Generator())
        >>> method = methods.parse({"name": "jem", "negatives": {"name": "sgld", "start": "data"}})
        >>> loss, parts = method.objective(model, x, y, context)
        >>> torch.allclose(loss, parts["natural"] + parts["lse_negatives"] - parts["lse_data"])
        True
    """

    name: ClassVar[str] = "jem"
    on_divergence: ClassVar[Literal["stop", "rollback"]] = "rollback"
    gamma: NonNegative = 1.0
    energy_l2: NonNegative = 0.0
    gradient_penalty: NonNegative = 0.0
    negatives: Annotated[SerializeAsAny[Sampler], samplers.field("sgld")] = SGLD()

    def draw(
        self, model: nn.Module, x: Tensor, y: Tensor, context: SamplerContext
    ) -> dict[str, Tensor]:
        """Return the data, `x`, and x̂, `sampled`; with `own_batch` also x′, `data`."""
        (first, data), (_, labels) = self.halves(x), self.halves(y)
        found = {"x": first, "sampled": self.negatives.draw(model, data, labels, context)}
        return found | ({"data": data} if self.own_batch else {})

    def loss(
        self, model: nn.Module, images: dict[str, Tensor], y: Tensor, context: SamplerContext
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, and its cross-entropy and both mean energies."""
        x = images.get("data", images["x"]).detach().requires_grad_(self.gradient_penalty > 0)
        near, away = model(x).float(), model(images["sampled"]).float()
        logits = model(images["x"]).float() if self.own_batch else near
        labels, smoothing = self.halves(y)[0], self.label_smoothing
        natural = cross_entropy(logits, labels, label_smoothing=smoothing)
        data, sampled = energy.marginal(near), energy.marginal(away)
        loss = natural + self.gamma * (sampled.mean() - data.mean())
        loss = loss + self.energy_l2 * (data.square().mean() + sampled.square().mean())
        if self.gradient_penalty:
            (slope,) = torch.autograd.grad(data.sum(), x, create_graph=True)
            loss = loss + self.gradient_penalty * slope.flatten(1).square().sum(1).mean()
        return loss, {
            "natural": natural.detach(),
            "lse_data": data.mean().detach(),
            "lse_negatives": sampled.mean().detach(),
        }

    def loss_cost(self, context: SamplerContext) -> int:
        """Gradients of the weights on two batches or three, and two for the penalty."""
        return 2 + self.own_batch + 2 * (self.gradient_penalty > 0)

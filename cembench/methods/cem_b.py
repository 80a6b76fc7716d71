"""CEM-B: both parts of CEM's likelihood gradient, with a bounded consistency part.

CEM (arXiv 2203.13455) splits ∇ log p(x, y) into a contrastive part, which adversarial training
follows, and a consistency part, E[∇f(x) − ∇f(x⁻)], which is not bounded. Here the consistency part
goes through a logistic link, as in DAT (arXiv 2510.13872), and x⁻ are persistent chains, as in JEM
(arXiv 1912.03263): a chain of class y takes a few steps of ascent of f(·, y) each time it is drawn,
and now and then begins anew. So x⁻ are samples of every age, and the energy is corrected along the
whole way from noise to data, for a few gradients a step.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import SerializeAsAny

from cembench import energy
from cembench.methods.adversarial import Adversarial
from cembench.methods.density import told_apart
from cembench.methods.trades import divergence
from cembench.samplers import Sampler, SamplerContext, samplers
from cembench.samplers.logits import CS
from cembench.util.lazy import lazy_imports
from cembench.util.settings import NonNegative

with lazy_imports():
    from torch import Tensor, nn
    from torch.nn.functional import cross_entropy

CHAINS: dict[str, Any] = {
    "start": "buffer",
    "steps": 5,
    "step_size": 0.1,
    "buffer": 2000,
    "renewed": 0.1,
}


class CEMB(Adversarial):
    """Minimise CE(x̂, y) + w·[softplus(−LSE x) + softplus(LSE x⁻)].

    With β above 0 the first term is that of TRADES, CE(x, y) + β·KL(p(·|x) ‖ p(·|x̂)). With w = 0
    it is AT or TRADES; DAT is w = ½ with chains that begin anew in each step.

    Attributes:
        contrast: sampler of x⁻; settings without a name are those of `cs` from a buffer of 2,000
            chains, 5 steps of length 0.1, of which a tenth begins anew from noise.
        weight: w.
        beta: β.

    Examples:
        Without the energy part it is adversarial training:

        >>> import torch
        >>> from cembench.energy.threat import Threat
        >>> from cembench.methods import methods
        >>> from cembench.samplers import SamplerContext
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
        >>> x, y = torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])
        >>> context = SamplerContext(Threat(norm="linf", eps=0.1), torch.Generator())
        >>> again = SamplerContext(context.threat, torch.Generator())
        >>> chains = {"start": "noise", "steps": 2}
        >>> method = methods.parse({"name": "cem-b", "weight": 0, "contrast": chains})
        >>> loss, parts = method.objective(model, x, y, context)
        >>> torch.equal(loss, methods.parse("at").objective(model, x, y, again)[0])
        True
        >>> sorted(parts)
        ['lse_data', 'lse_negatives', 'robust', 'separated', 'told']
    """

    name: ClassVar[str] = "cem-b"
    on_divergence: ClassVar[Literal["stop", "rollback"]] = "rollback"
    contrast: Annotated[SerializeAsAny[Sampler], samplers.field("cs", given=CHAINS)] = CS(**CHAINS)
    weight: NonNegative = 0.5
    beta: NonNegative = 0.0

    def draw(
        self, model: nn.Module, x: Tensor, y: Tensor, context: SamplerContext
    ) -> dict[str, Tensor]:
        """Return the data, `x`, x̂, `attacked`, and x⁻, `sampled`."""
        found = super().draw(model, x, y, context)
        return {**found, "sampled": self.contrast.draw(model, x, y, context)}

    def loss(
        self, model: nn.Module, images: dict[str, Tensor], y: Tensor, context: SamplerContext
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and its parts, and how often x⁻ is told from x."""
        keys = ("x", "attacked", "sampled")
        clean, attacked, away = (model(images[key]).float() for key in keys)
        robust = self._robust(clean, attacked, y)
        told, parts = told_apart(energy.marginal(clean), energy.marginal(away))
        return robust + self.weight * told, {"robust": robust.detach(), **parts}

    def _robust(self, clean: Tensor, attacked: Tensor, y: Tensor) -> Tensor:
        if not self.beta:
            return cross_entropy(attacked, y, label_smoothing=self.label_smoothing)
        kl = divergence(clean, attacked)
        return cross_entropy(clean, y, label_smoothing=self.label_smoothing) + self.beta * kl

    def climbed(
        self, model: nn.Module, images: dict[str, Tensor], y: Tensor, context: SamplerContext
    ) -> Tensor:
        """Return CE(x̂, y), which perturbed weights climb: one gradient in place of three."""
        return cross_entropy(model(images["attacked"]).float(), y)

    def loss_cost(self, context: SamplerContext) -> int:
        """Gradients of the weights on x, x̂ and x⁻."""
        return 3

    def climbed_cost(self, context: SamplerContext) -> int:
        """Gradient of the weights on x̂."""
        return 1

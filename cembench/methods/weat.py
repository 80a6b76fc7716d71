"""WEAT (Mirza et al., ECCV 2024, arXiv 2407.06315): TRADES with images weighted by energy."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import SerializeAsAny

from cembench import energy
from cembench.energy import potentials
from cembench.methods.adversarial import Adversarial
from cembench.samplers import Sampler, SamplerContext, samplers
from cembench.samplers.pgd import TRADES
from cembench.util.lazy import lazy_imports
from cembench.util.settings import NonNegative

with lazy_imports():
    from torch import Tensor, nn
    from torch.nn.functional import cross_entropy, softplus


class WEAT(Adversarial):
    """Minimise mean w·[CE + β·KL(p(·|x) ‖ p(·|x̂))], w = 1/softplus(|LSE f(x)|), no gradient in w.

    Images of high energy, whose LSE is near 0, weigh most. With equal weights it is TRADES. Formula
    and defaults are those of the code (OmnAI-Lab/Robust-Classifiers-under-the-lens-of-EBM), which
    does not divide by the sum of the weights either.

    Attributes:
        beta: β, the weight of the divergence; the authors take 6 for `clean` and 7 for `attacked`.
        natural: images of the cross-entropy: `clean` is WEAT_nat of the paper, `attacked` WEAT_adv.
        negatives: sampler of x̂.

    Examples:
        A network with LSE = 0 everywhere gives all images the weight 1/log 2:

        >>> import math, torch
        >>> from cembench.energy.threat import Threat
        >>> from cembench.methods import methods
        >>> from cembench.samplers import SamplerContext
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Flatten(), torch.nn.Linear(12, 3), torch.nn.LogSoftmax(1)
        ... )
        >>> x, y = torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])
        >>> context = SamplerContext(Threat(norm="linf", eps=0.1), torch.Generator())
        >>> again = SamplerContext(context.threat, torch.Generator())
        >>> loss, parts = methods.parse("weat").objective(model, x, y, context)
        >>> trades, _ = methods.parse("trades").objective(model, x, y, again)
        >>> torch.allclose(loss * math.log(2), trades), round(float(parts["weight"]), 4)
        (True, 1.4427)
    """

    name: ClassVar[str] = "weat"
    beta: NonNegative = 6.0
    natural: Literal["clean", "attacked"] = "clean"
    negatives: Annotated[SerializeAsAny[Sampler], samplers.field("trades")] = TRADES()

    def loss(
        self, model: nn.Module, images: dict[str, Tensor], y: Tensor, context: SamplerContext
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, its two weighted terms, and the mean weight."""
        logits, moved = model(images["x"]).float(), model(images["attacked"]).float()
        weight = 1 / softplus(energy.marginal(logits).detach().abs())
        judged = logits if self.natural == "clean" else moved
        smoothing = self.label_smoothing
        natural = cross_entropy(judged, y, reduction="none", label_smoothing=smoothing)
        robust = potentials.divergence(moved, logits.log_softmax(1))
        natural, robust = (weight * natural).mean(), (weight * robust).mean()
        return natural + self.beta * robust, {
            "natural": natural.detach(),
            "robust": robust.detach(),
            "weight": weight.mean(),
        }

    def loss_cost(self, context: SamplerContext) -> int:
        """Gradients of the weights on two batches."""
        return 2

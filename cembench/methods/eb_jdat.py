"""EB-JDAT (Jiang et al., CVPR 2026, arXiv 2505.19459): JEM with attacked images as a third part."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, SerializeAsAny

from cembench import energy
from cembench.methods.adversarial import Adversarial
from cembench.methods.density import Density
from cembench.samplers import Sampler, SamplerContext, samplers
from cembench.samplers.eb_jdat import EBJDATInner
from cembench.samplers.logits import SGLD
from cembench.util.lazy import lazy_imports
from cembench.util.settings import NonNegative

with lazy_imports():
    from torch import Tensor, nn
    from torch.nn.functional import cross_entropy

    from cembench.util.rng import normal

CHAINS: dict[str, Any] = {
    "steps": 10,
    "step_size": 0.25,
    "noise": 0.0,
    "renewal": "gaussian",
    "box": True,
    "mode": "train",
}


class EBJDAT(Density, Adversarial):
    """Minimise CE(x, y) + CE(x̂, y) − γ·(LSE(x′) − LSE(x⁻)) + w·(LSE(x̂) − LSE(x′)).

    x′ are images of a batch of their own without augmentation, plus noise; x⁻ samples. The defaults
    are those of the code (jkcjkc/EB-JDAT, folder EB-JDAT-SADAJEM), in pixels on [0, 1]; it takes
    the step at weights that adaptive SAM moved: `weights: {name: sam, rho: 2, adaptive: true}`.

    Code and paper differ. The paper maximises the joint probability of data and attacked images,
    which raises LSE(x̂), but w > 0 in the code lowers it: `alignment: -0.1` does as the words say.
    The code's x̂ ascends the logit of its label and leaves the ball (`negatives`, the sampler
    `eb-jdat`): here it is projected unless `negatives: {project: false}`. The code also bounds the
    gradient of each pixel in the chains of x⁻, which is not built.

    Attributes:
        gamma: γ, the weight of log p(x).
        alignment: weight w of LSE(x̂) − LSE(x′), of either sign.
        data_noise: σ of the Gaussian noise on x′, in pixels.
        own_batch: whether x′ is a batch of its own, in another order of the images; else it is x.
        negatives: sampler of x̂.
        contrast: sampler of x⁻. Settings without a name are those of `sgld` with 10 steps of 0.25
            without noise, from a buffer that Gaussians renew, in training mode.

    Examples:
        Four terms are logged; here x′ and x are the same images, and chains start from them:

        >>> import torch
        >>> from cembench.energy.threat import Threat
        >>> from cembench.methods import methods
        >>> from cembench.samplers import SamplerContext
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
        >>> x, y = torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])
        >>> context = SamplerContext(Threat(norm="linf", eps=0.1), torch.Generator())
        >>> settings = {"own_batch": False, "contrast": {"start": "data"}, "alignment": -0.5}
        >>> method = methods.parse({"name": "eb-jdat", **settings})
        >>> loss, parts = method.objective(model, x, y, context)
        >>> density = parts["lse_negatives"] - parts["lse_data"]
        >>> aligned = parts["lse_attacked"] - parts["lse_data"]
        >>> terms = parts["natural"] + parts["robust"] + density - 0.5 * aligned
        >>> torch.allclose(loss, terms), method.cost(context)
        (True, 19)
    """

    name: ClassVar[str] = "eb-jdat"
    on_divergence: ClassVar[Literal["stop", "rollback"]] = "rollback"
    gamma: NonNegative = 1.0
    alignment: Annotated[float, Field(ge=-1000, le=1000)] = 0.1
    data_noise: NonNegative = 0.015
    own_batch: bool = True
    negatives: Annotated[SerializeAsAny[Sampler], samplers.field("eb-jdat")] = EBJDATInner()
    contrast: Annotated[SerializeAsAny[Sampler], samplers.field("sgld", given=CHAINS)] = SGLD(
        **CHAINS
    )

    def draw(
        self, model: nn.Module, x: Tensor, y: Tensor, context: SamplerContext
    ) -> dict[str, Tensor]:
        """Return the labelled images `x`, x̂ as `attacked`, x′ as `data` and x⁻ as `sampled`."""
        (first, data), (labels, others) = self.halves(x), self.halves(y)
        sampled = self.contrast.draw(model, data, others, context)
        noisy = data + self.data_noise * normal(data.shape, context.generator)
        attacked = self.negatives.draw(model, first, labels, context)
        return {"x": first, "attacked": attacked, "data": noisy, "sampled": sampled}

    def loss(
        self, model: nn.Module, images: dict[str, Tensor], y: Tensor, context: SamplerContext
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, both cross-entropies and the three mean energies."""
        labels, smoothing = self.halves(y)[0], self.label_smoothing
        data, sampled = (energy.marginal(model(images[k]).float()) for k in ("data", "sampled"))
        logits, away = (model(images[k]).float() for k in ("x", "attacked"))
        natural = cross_entropy(logits, labels, label_smoothing=smoothing)
        robust = cross_entropy(away, labels, label_smoothing=smoothing)
        means = [data.mean(), sampled.mean(), energy.marginal(away).mean()]
        density, aligned = means[1] - means[0], means[2] - means[0]
        loss = natural + robust + self.gamma * density + self.alignment * aligned
        return loss, {
            "natural": natural.detach(),
            "robust": robust.detach(),
            "lse_data": means[0].detach(),
            "lse_negatives": means[1].detach(),
            "lse_attacked": means[2].detach(),
        }

    def loss_cost(self, context: SamplerContext) -> int:
        """Gradients of the weights on four batches."""
        return 4

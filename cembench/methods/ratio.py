"""RATIO (Augustin et al., ECCV 2020, arXiv 2003.09461): AT on the data and outside of them."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self

from pydantic import SerializeAsAny, model_validator

from cembench.energy import potentials
from cembench.methods.adversarial import Adversarial
from cembench.samplers import Sampler, SamplerContext, samplers
from cembench.samplers.logits import Confidence
from cembench.samplers.pgd import PGD
from cembench.util.lazy import lazy_imports
from cembench.util.settings import Fraction

with lazy_imports():
    import torch
    from torch import Tensor, nn
    from torch.nn.functional import cross_entropy

OUTSIDE: dict[str, Any] = {"start": "smooth", "steps": 20, "step_size": 0.1, "eps": 1.0}


class RATIO(Adversarial):
    """Minimise (1 − λ)·CE(x̂, y) + λ·KL(uniform ‖ p(·|x⁻)): unsure of all images outside the data.

    x⁻ is the image near one from elsewhere that raises the network's confidence most. Both go
    through the network as one batch, and share the batch statistics. The defaults are those of the
    authors' code (M4xim4l/InNOutRobustness) for CIFAR-10 with ℓ2 0.5, but for two things. Its x⁻
    start at 80 Million Tiny Images, which were withdrawn; here at smooth noise, that of ACET, which
    needs no other data: `contrast: {start: outside, outside: cifar100}` has some. Its attacks add
    momentum of 0.9 and return their best iterate. x⁻ ascends the divergence that is minimised, the
    default of the script; the class that it calls has max_k log p(k|x⁻), `{measure: maximum}`.

    Attributes:
        weight: λ; 0 is adversarial training.
        negatives: sampler of x̂; `pgd` starts at the image unless the settings name it.
        contrast: sampler of x⁻. Settings without a name are those of `confidence` from `smooth`
            noise, 20 steps of length 0.1 in an ℓ2 ball of radius 1, twice that of the data.

    Examples:
        Both terms are logged, and the mean confidence on x⁻:

        >>> import torch
        >>> from cembench.energy.threat import Threat
        >>> from cembench.methods import methods
        >>> from cembench.samplers import SamplerContext
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
        >>> x, y = torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])
        >>> context = SamplerContext(Threat(norm="l2", eps=0.5), torch.Generator())
        >>> method = methods.parse("ratio")
        >>> loss, parts = method.objective(model, x, y, context)
        >>> torch.allclose(loss, (parts["robust"] + parts["outside"]) / 2)
        True
        >>> method.cost(context), methods.parse({"name": "ratio", "weight": 0}).cost(context)
        (32, 11)
    """

    name: ClassVar[str] = "ratio"
    weight: Fraction = 0.5
    negatives: Annotated[
        SerializeAsAny[Sampler], samplers.field("pgd", given={"start": "data"})
    ] = PGD(start="data")
    contrast: Annotated[SerializeAsAny[Sampler], samplers.field("confidence", given=OUTSIDE)] = (
        Confidence(**OUTSIDE)
    )

    @model_validator(mode="after")
    def _leaves_the_data(self) -> Self:
        if self.contrast.in_ball:
            name = self.contrast.name
            raise ValueError(f"contrast: {name} stays at the data; take confidence")
        return self

    def draw(
        self, model: nn.Module, x: Tensor, y: Tensor, context: SamplerContext
    ) -> dict[str, Tensor]:
        """Return x̂ as `attacked`, and x⁻ as `outside` unless λ = 0."""
        found = {"attacked": self.negatives.draw(model, x, y, context)}
        if self.weight:
            found["outside"] = self.contrast.draw(model, x, y, context)
        return found

    def loss(
        self, model: nn.Module, images: dict[str, Tensor], y: Tensor, context: SamplerContext
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, its two terms, and the confidence outside the data."""
        logits = model(torch.cat(list(images.values()))).float()
        robust = cross_entropy(logits[: len(y)], y, label_smoothing=self.label_smoothing)
        if not self.weight:
            return robust, {"robust": robust.detach()}
        away = logits[len(y) :]
        outside = potentials.non_uniformity(away, y).mean()
        loss = (1 - self.weight) * robust + self.weight * outside
        return loss, {
            "robust": robust.detach(),
            "outside": outside.detach(),
            "confidence": potentials.confidence(away, y).exp().mean().detach(),
        }

    def draw_cost(self, context: SamplerContext) -> int:
        """Steps of both attacks."""
        return self.negatives.gradients + (self.contrast.gradients if self.weight else 0)

    def loss_cost(self, context: SamplerContext) -> int:
        """Gradients of the weights on two batches; on one if λ = 0."""
        return 2 if self.weight else 1

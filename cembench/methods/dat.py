"""Dual adversarial training: a robust classifier whose LSE also tells data from samples.

The loss is that of the dual adversarial training that leads robust and generative rankings: PGD
adversarial training, and binary classification with LSE f(x, ·) as the logit of "data". The samples
ascend LSE from noise or from images of another data set, with more steps as the two become
separable.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, SerializeAsAny

from cembench import energy
from cembench.methods.adversarial import Adversarial
from cembench.samplers import Sampler, SamplerContext, samplers
from cembench.samplers.logits import SGLD
from cembench.samplers.pgd import PGD
from cembench.util.lazy import lazy_imports
from cembench.util.settings import Count, NonNegative

with lazy_imports():
    import torch
    from torch import Tensor, nn
    from torch.nn.functional import cross_entropy, softplus


class DAT(Adversarial):
    """Minimise CE(x̂, y) + w·[BCE(σ(LSE x), 1) + BCE(σ(LSE x⁻), 0)].

    The first stage is adversarial training alone. In the second, batch norm keeps the running
    statistics of the first, because data and samples have different batch statistics.

    Attributes:
        negatives: sampler of x̂.
        contrast: sampler of x⁻: by default normalised ascent of LSE from noise. Its `steps` are the
            maximum of the curriculum. `start: outside` starts from another data set.
        weight: w, the weight of the binary classification.
        first_stage: epochs of the first stage.
        first_steps: steps of x⁻ when the second stage begins.
        more_steps: steps added after each epoch in which x and x⁻ were separable.
        separable: accuracy of the binary classification from which they count as separable.

    Examples:
        Steps of x⁻ after each epoch, of which the last was separable:

        >>> from dataclasses import replace
        >>> import torch
        >>> from cembench.energy.threat import Threat
        >>> from cembench.methods import methods
        >>> from cembench.samplers import SamplerContext
        >>> context = SamplerContext(Threat(norm="linf", eps=0.1), torch.Generator())
        >>> dat = methods.parse({"name": "dat", "first_stage": 2, "more_steps": 3})
        >>> history = [{}, {}, {"separated": 0.7}, {"separated": 0.95}]
        >>> [dat.steps_at(replace(context, history=history[:epoch])) for epoch in range(5)]
        [0, 0, 5, 5, 8]
    """

    name: ClassVar[str] = "dat"
    on_divergence: ClassVar[Literal["stop", "rollback"]] = "rollback"
    negatives: Annotated[SerializeAsAny[Sampler], samplers.field("pgd")] = PGD()
    contrast: Annotated[SerializeAsAny[Sampler], samplers.field("sgld")] = SGLD(
        steps=40, step_size=0.1, direction="l2", noise=0.0, start="noise", box=True
    )
    weight: NonNegative = 1.0
    first_stage: Annotated[int, Field(ge=0)] = 10
    first_steps: Count = 5
    more_steps: Count = 5
    separable: Annotated[float, Field(gt=0.5, le=1)] = 0.9

    @property
    def first_kept(self) -> int:
        """First epoch of the second stage: the first stage is adversarial training alone."""
        return self.first_stage + 1

    @property
    def sampler(self) -> Sampler:
        """Sampler whose initial images training prepares: that of x⁻."""
        return self.contrast

    def loss(
        self, model: nn.Module, x: Tensor, y: Tensor, context: SamplerContext
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and its parts, in the second stage with the accuracy on x and x⁻."""
        steps = self.steps_at(context)
        if steps:
            _freeze_batch_norms(model)
        attacked = self.negatives.draw(model, x, y, context)
        sampler = self.contrast.model_copy(update={"steps": steps})
        sampled = sampler.draw(model, x, y, context) if steps else None
        robust = cross_entropy(model(attacked), y, label_smoothing=self.label_smoothing)
        if sampled is None:
            return robust, {"robust": robust.detach()}
        away = energy.marginal(model(sampled).float())
        data = energy.marginal(model(x).float())
        told = softplus(-data).mean() + softplus(away).mean()
        separated = ((data > 0).float().mean() + (away < 0).float().mean()) / 2
        return robust + self.weight * told, {
            "robust": robust.detach(),
            "told": told.detach(),
            "separated": separated,
            "contrast_steps": torch.tensor(float(steps)),
            "lse_data": data.mean().detach(),
            "lse_negatives": away.mean().detach(),
        }

    def steps_at(self, context: SamplerContext) -> int:
        """Return the steps of x⁻ after the epochs logged so far; 0 in the first stage."""
        if len(context.history) < self.first_stage:
            return 0
        raised = sum(row.get("separated", 0.0) >= self.separable for row in context.history)
        return min(self.contrast.steps, self.first_steps + self.more_steps * raised)

    def cost(self, context: SamplerContext) -> int:
        """Steps of the attack and the gradient of the weights; then steps of x⁻ and two more."""
        steps = self.steps_at(context)
        return self.negatives.steps + 1 + (steps + 2 if steps else 0)


def _freeze_batch_norms(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()

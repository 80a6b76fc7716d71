"""Dual adversarial training (Yin et al., arXiv 2510.13872): robust, and with LSE as a detector.

The loss is that of adversarial training, plus binary classification with LSE f(x, ·) as the logit
of "data". The samples x⁻ ascend the logit of their class from noise or from images of another data
set, with more steps as soon as the two can be told apart.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, SerializeAsAny

from cembench import energy
from cembench.data.augmentation import Augment
from cembench.methods.adversarial import Adversarial
from cembench.methods.density import Density, told_apart
from cembench.samplers import Ascent, Sampler, SamplerContext, samplers
from cembench.samplers.logits import CS
from cembench.samplers.pgd import PGD
from cembench.util.lazy import lazy_imports
from cembench.util.settings import Count, NonNegative

with lazy_imports():
    from torch import Tensor, nn
    from torch.nn.functional import cross_entropy


CONTRAST: dict[str, Any] = {"start": "noise", "steps": 50, "step_size": 0.1}


class DAT(Density, Adversarial):
    """Minimise CE(x̂, y) + w·[BCE(σ(LSE x), 1) + BCE(σ(LSE x⁻), 0)].

    The defaults are those of the authors' code for CIFAR-10 with ℓ2 0.5. What a config still has to
    say: the step of PGD, which is 0.2 ε there; `ema: 0.999`; `augment` with AutoAugment and cutout;
    and other images to start x⁻ from (theirs are the withdrawn Tiny Images). The first stage is
    adversarial training alone. In the second, batch norm keeps the running statistics of the first.

    Attributes:
        negatives: sampler of x̂; `pgd` starts at the image unless the settings name it.
        contrast: sampler of x⁻; its `steps` are the maximum of the curriculum. Settings without a
            name are those of `cs` from `noise`, 50 steps of length 0.1. `start: outside` starts
            from another data set.
        weight: w; ½ makes the sum the mean over x and x⁻ together.
        own_batch: whether x is a batch of its own, in another order than that of x̂, with labels
            that x⁻ ascends.
        density_augment: augmentation of that batch.
        first_stage: epochs of the first stage.
        first_steps: steps of x⁻ when the second stage begins.
        more_steps: steps added whenever x and x⁻ are separable.
        curriculum: when that is seen: `auc` takes the area under the ROC curve of f(x, y) and
            f(x⁻, y), a mean over the last batches, in every step; `epoch` takes the accuracy of the
            binary classification, once an epoch.
        separable: AUC or accuracy from which they count as separable.
        window: images of those last batches; after a rise they are counted anew.

    Examples:
        Steps of x⁻ after batches of 500 images:

        >>> import torch
        >>> from cembench.methods import methods
        >>> dat = methods.parse({"name": "dat", "first_stage": 0})
        >>> memory, steps = {}, []
        >>> for auc in (0.9, 0.8, 0.9, 0.6, 0.9, 0.9):
        ...     dat.learn(memory, {"auc": torch.tensor(auc)}, 500)
        ...     steps.append(memory["steps"])
        >>> steps
        [0, 1, 1, 1, 1, 2]
    """

    name: ClassVar[str] = "dat"
    on_divergence: ClassVar[Literal["stop", "rollback"]] = "rollback"
    negatives: Annotated[
        SerializeAsAny[Sampler], samplers.field("pgd", given={"start": "data"})
    ] = PGD(start="data")
    contrast: Annotated[SerializeAsAny[Ascent], samplers.field("cs", given=CONTRAST)] = CS(
        **CONTRAST
    )
    weight: NonNegative = 0.5
    own_batch: bool = True
    density_augment: Augment = Augment()
    first_stage: Annotated[int, Field(ge=0)] = 10
    first_steps: Annotated[int, Field(ge=0)] = 0
    more_steps: Count = 1
    curriculum: Literal["auc", "epoch"] = "auc"
    separable: Annotated[float, Field(gt=0, le=1)] = 0.8
    window: Count = 1000

    @property
    def first_kept(self) -> int:
        """First epoch of the second stage: the first stage is adversarial training alone."""
        return self.first_stage + 1

    def draw(
        self, model: nn.Module, x: Tensor, y: Tensor, context: SamplerContext
    ) -> dict[str, Tensor]:
        """Return x̂ as `attacked`; in the second stage also `x` and x⁻, `sampled`."""
        (first, data), labels = self.halves(x), self.halves(y)
        second = context.epoch >= self.first_stage
        if second:
            _freeze_batch_norms(model)
        found = {"attacked": self.negatives.draw(model, first, labels[0], context)}
        if second:
            sampled = self._sampler_of(context).draw(model, data, labels[-1], context)
            found |= {"x": data, "sampled": sampled}
        return found

    def _sampler_of(self, context: SamplerContext) -> Sampler:
        return self.contrast.model_copy(update={"steps": self.steps_at(context)})

    def loss(
        self, model: nn.Module, images: dict[str, Tensor], y: Tensor, context: SamplerContext
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and its parts, in the second stage with how well x⁻ is told from x."""
        labels = self.halves(y)
        logits = model(images["attacked"])
        robust = cross_entropy(logits, labels[0], label_smoothing=self.label_smoothing)
        if "sampled" not in images:
            return robust, {"robust": robust.detach()}
        away, near = model(images["sampled"]).float(), model(images["x"]).float()
        told, parts = told_apart(energy.marginal(near), energy.marginal(away))
        return robust + self.weight * told, {
            "robust": robust.detach(),
            **parts,
            "auc": auc(energy.joint(near, labels[-1]), energy.joint(away, labels[-1])).detach(),
            "contrast_steps": told.new_tensor(self.steps_at(context)),
        }

    def learn(self, memory: dict[str, Any], values: dict[str, Tensor], images: int) -> None:
        """Raise the steps of x⁻ as soon as the mean AUC of a window of images is high enough."""
        if self.curriculum != "auc" or "auc" not in values:
            return
        whole = math.ceil(self.window / images)
        seen = [*memory.get("aucs", []), float(values["auc"])][-whole:]
        steps = memory.get("steps", self.first_steps)
        if len(seen) == whole and sum(seen) / whole >= self.separable:
            steps, seen = min(steps + self.more_steps, self.contrast.steps), []
        memory |= {"steps": steps, "aucs": seen}

    def steps_at(self, context: SamplerContext) -> int:
        """Return the steps of x⁻ now; 0 in the first stage."""
        if context.epoch < self.first_stage:
            return 0
        if self.curriculum == "auc":
            steps: int = context.memory.get("steps", self.first_steps)
        else:
            raised = sum(row.get("separated", 0.0) >= self.separable for row in context.history)
            steps = self.first_steps + self.more_steps * raised
        return min(self.contrast.steps, steps)

    def draw_cost(self, context: SamplerContext) -> int:
        """Steps of the attack and of x⁻."""
        return self.negatives.gradients + self.steps_at(context)

    def loss_cost(self, context: SamplerContext) -> int:
        """Gradients of the weights on one batch, and on three in the second stage."""
        return 3 if context.epoch >= self.first_stage else 1


def auc(positive: Tensor, negative: Tensor) -> Tensor:
    """Return the area under the ROC curve: the share of pairs in the right order.

    Args:
        positive: scores that should be higher, N.
        negative: scores that should be lower, M.
    """
    pairs = positive[:, None] - negative
    return (pairs > 0).float().mean() + (pairs == 0).float().mean() / 2


def _freeze_batch_norms(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()

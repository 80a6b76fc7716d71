"""Adversarial training that also tells data from samples of the model.

The loss is that of the dual adversarial training that leads robust and generative rankings: a
classifier that withstands PGD, whose LSE is the logit of "this is data". Its negatives climb
LSE from noise or from images of another data set, ever further as the two become separable.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, SerializeAsAny
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, softplus

from cembench import energy
from cembench.methods.adversarial import Adversarial
from cembench.samplers import Sampler, Scene, samplers
from cembench.samplers.energy import SGLD
from cembench.samplers.pgd import PGD
from cembench.util.settings import Count, NonNegative


class DAT(Adversarial):
    """Minimise CE(x̂, y) + w·[BCE(σ(LSE x), 1) + BCE(σ(LSE x⁻), 0)].

    The first stage is adversarial training alone. In the second, batch norm keeps the statistics
    of the first, since batches of data and of samples have others.

    Attributes:
        negatives: where x̂ comes from.
        contrast: where x⁻ comes from: by default normalised ascent of LSE from noise; its steps
            are the most that the curriculum reaches. `start: outside` takes another data set.
        weight: w, the weight of telling x from x⁻.
        first_stage: epochs of the first stage.
        first_steps: steps of x⁻ when the second begins.
        more_steps: steps added after each epoch in which the two were separable.
        separable: the accuracy of telling x from x⁻ at which they are.
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
        """The first epoch of the second stage: before it there is only adversarial training."""
        return self.first_stage + 1

    @property
    def sampler(self) -> Sampler:
        """The sampler of x⁻, which may need seeds, a buffer or another data set."""
        return self.contrast

    def loss(
        self, model: nn.Module, x: Tensor, y: Tensor, scene: Scene
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the sum; in the second stage also its parts and how separable x and x⁻ were."""
        steps = self.steps_at(scene)
        if steps:
            _keep_statistics(model)
        attacked = self.negatives.draw(model, x, y, scene)
        sampler = self.contrast.model_copy(update={"steps": steps})
        sampled = sampler.draw(model, x, y, scene) if steps else None
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

    def steps_at(self, scene: Scene) -> int:
        """Return the steps of x⁻ that history has led to, 0 in the first stage."""
        if len(scene.history) < self.first_stage:
            return 0
        raised = sum(row.get("separated", 0.0) >= self.separable for row in scene.history)
        return min(self.contrast.steps, self.first_steps + self.more_steps * raised)

    def cost(self, scene: Scene) -> int:
        """The attack's steps and the weights' gradient; in the second stage x⁻ and two more."""
        steps = self.steps_at(scene)
        return self.negatives.steps + 1 + (steps + 2 if steps else 0)


def _keep_statistics(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()

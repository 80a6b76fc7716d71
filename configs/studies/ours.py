"""Candidates for a method of our own, as a plugin: `--plugin ours` where this file lies.

Each setting is an ingredient that was tried on held-out images (frontier-trials.yaml). What helped
is the method `cem-b`; the others are here so that their rows can be made again.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, SerializeAsAny
from torch.nn.functional import cross_entropy, kl_div, softplus

from cembench import energy
from cembench.methods import methods
from cembench.methods.adversarial import Adversarial
from cembench.samplers import Sampler, samplers
from cembench.samplers.logits import CS
from cembench.util.settings import NonNegative

CHAINS: dict[str, Any] = {"start": "buffer", "steps": 10, "step_size": 0.1}
CHAINS |= {"buffer": 2000, "renewed": 0.1}


@methods.register
class Ours(Adversarial):
    """CE(x̂, y) or TRADES, and w times a bounded difference of energies of data and x⁻.

    Attributes:
        contrast: sampler of x⁻.
        beta: β of TRADES; 0 for AT.
        share: of x̂ among the data of the energy part.
        weight: w.
        link: how the difference is bounded: `lse` tells data by LSE f(x, ·), `joint` by f(x, y),
            and `paired` by f(x, y) − f(x⁻, y).
        energy_l2: weight of LSE².
    """

    name: ClassVar[str] = "ours"
    on_divergence: ClassVar[Literal["stop", "rollback"]] = "rollback"
    contrast: Annotated[SerializeAsAny[Sampler], samplers.field("cs", given=CHAINS)] = CS(**CHAINS)
    beta: NonNegative = 0.0
    share: Annotated[float, Field(ge=0, le=1)] = 0.0
    weight: NonNegative = 0.5
    link: Literal["lse", "joint", "paired"] = "lse"
    energy_l2: NonNegative = 0.0

    def draw(self, model, x, y, context):
        """Return x, x̂ and x⁻."""
        found = super().draw(model, x, y, context)
        return {**found, "sampled": self.contrast.draw(model, x, y, context)}

    def loss(self, model, images, y, context):
        """Return the loss and its parts."""
        attacked, away = (model(images[key]).float() for key in ("attacked", "sampled"))
        clean = model(images["x"]).float() if self._reads_clean else attacked
        robust = cross_entropy(attacked, y)
        if self.beta:
            pair = attacked.log_softmax(1), clean.log_softmax(1)
            kl = kl_div(*pair, reduction="batchmean", log_target=True)
            robust = cross_entropy(clean, y) + self.beta * kl
        told = self._told(clean, attacked, away, y)
        square = sum(energy.marginal(z).square().mean() for z in (clean, away))
        told = told + self.energy_l2 * square
        parts = {"robust": robust.detach(), "told": told.detach()}
        return robust + self.weight * told, parts

    def _told(self, clean, attacked, away, y):
        read = energy.marginal if self.link == "lse" else lambda z: energy.joint(z, y)
        data, near, far = read(clean), read(attacked), read(away)
        own, a = 1 - self.share, self.share
        if self.link == "paired":
            return 2 * (own * softplus(far - data) + a * softplus(far - near)).mean()
        return (own * softplus(-data) + a * softplus(-near) + softplus(far)).mean()

    @property
    def _reads_clean(self):
        return self.beta > 0 or self.share < 1

    def climbed(self, model, images, y, context):
        """Return CE(x̂, y)."""
        return cross_entropy(model(images["attacked"]).float(), y)

    def loss_cost(self, context):
        """Gradients of the weights on x̂, x⁻ and, where it is read, x."""
        return 2 + self._reads_clean

    def climbed_cost(self, context):
        """Gradient of the weights on x̂."""
        return 1

"""Inner step of EB-JDAT (arXiv 2505.19459): ascent near an image, as its code does it."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from cembench.energy import potentials
from cembench.energy.norms import Linf
from cembench.energy.potentials import Potential, WithDistance
from cembench.samplers import SamplerContext
from cembench.samplers.pgd import InBall
from cembench.util.lazy import lazy_imports
from cembench.util.settings import Count, NonNegative

with lazy_imports():
    import torch
    from torch import Tensor, nn

    from cembench.models.copies.surrogate import ascent_model

POTENTIALS: dict[str, Potential] = {
    "label": potentials.joint,
    "cross_entropy": potentials.cross_entropy,
}


class EBJDATInner(InBall):
    """Steepest ascent of f(x̂, y) plus a distance of logits, from a uniform start in the ball.

    The code (jkcjkc/EB-JDAT, `sampleXadv`) ascends the logit of the *true* class, so it moves
    toward y where an attack moves away, and it does not project: after the uniform start in ε,
    steps of α reach ε + steps·α. Its ε = 8/255 and α = 2/255 on [−1, 1] are 4/255 and 1/255 on
    [0, 1]. `objective: cross_entropy` is the alternative in its comments.

    Attributes:
        objective: what is ascended: the logit f(x̂, y) of the `label`, or the `cross_entropy`.
        distance: weight of ‖u(x̂) − u(x)‖², where u is the logits scaled to length 1.
        project: whether x̂ stays in the ball of the threat model; without, only in [0, 1].

    Examples:
        The logit of the label rises, and the ball is kept unless `project: false`:

        >>> import torch
        >>> from cembench.energy.threat import Threat
        >>> from cembench.samplers import SamplerContext, samplers
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
        >>> x, y = 0.3 + 0.4 * torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])
        >>> context = SamplerContext(Threat(norm="linf", eps=0.1), torch.Generator())
        >>> sampler = samplers.parse({"name": "eb-jdat", "distance": 0})
        >>> moved = sampler.draw(model, x, y, context)
        >>> bool((model(moved) > model(x)).gather(1, y[:, None]).all())
        True
        >>> bool((moved - x).abs().max() <= 0.1 + 1e-6)
        True
        >>> sampler.model_copy(update={"project": False}).in_ball
        False
    """

    name: ClassVar[str] = "eb-jdat"
    steps: Count = 5
    objective: Literal["label", "cross_entropy"] = "label"
    distance: NonNegative = 1.0
    project: bool = True

    @property
    def in_ball(self) -> bool:
        """Whether samples stay in the ball, as `project` says."""
        return self.project

    def draw(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        context: SamplerContext,
        target: Tensor | None = None,
    ) -> Tensor:
        """Return the last iterates."""
        ball, target = context.threat.ball, y if target is None else target
        start = ball.uniform(x, context.generator)
        with ascent_model(model, x, self.mode, context.surrogate) as net:
            within = ball if self.project else Linf(math.inf)
            rising = self.raised(net, x)
            return self._ascend(net, rising, start, target, x, context, within=within)

    def raised(self, net: nn.Module, x: Tensor) -> Potential:
        """Return the objective plus the distance from the logits at x."""
        with torch.no_grad():
            clean = net(x)
        return WithDistance(POTENTIALS[self.objective], self.distance, clean)

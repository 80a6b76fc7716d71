"""Samplers of logits: SGLD, TA, CS, RCS and confidence, each the ascent of one potential.

Source: CEM (arXiv 2203.13455); SGLD is that of JEM (arXiv 1912.03263), confidence that of RATIO
(arXiv 2003.09461).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from cembench.energy import potentials
from cembench.energy.potentials import Potential
from cembench.samplers import SamplerContext
from cembench.samplers.energy import EnergySampler, Objective, Start
from cembench.util.settings import Count, NonNegative, Positive

if TYPE_CHECKING:
    from torch import Tensor, nn


class SGLD(EnergySampler):
    """Stochastic gradient Langevin dynamics on log p(x), as in JEM (arXiv 1912.03263).

    Raw gradients of LSE f(x, ·), noise that does not depend on the step size, a replay buffer, and
    no projection. JEM's step 1 and noise 0.01 on [−1, 1] are 0.25 and 0.005 on [0, 1].

    Examples:
        SGLD raises log p(x); by default its chains start from a replay buffer:

        >>> import torch
        >>> from cembench.energy.threat import Threat
        >>> from cembench.samplers import SamplerContext, samplers
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
        >>> x, y = torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])
        >>> context = SamplerContext(Threat(norm="linf", eps=0.1), torch.Generator())
        >>> sampler = samplers.parse({"name": "sgld", "start": "data"})
        >>> samples = sampler.draw(model, x, y, context)
        >>> before, after = (model(images).logsumexp(1) for images in (x, samples))
        >>> bool((after > before).all())
        True
        >>> samplers.parse("sgld").needs().buffer_size
        10000
    """

    name: ClassVar[str] = "sgld"
    potential: ClassVar[Potential] = staticmethod(potentials.marginal)
    steps: Count = 20
    step_size: Positive | None = 0.25
    direction: Literal["l2", "raw", "sign"] = "raw"
    noise: NonNegative | None = 0.005
    start: Start = "buffer"
    box: bool = False

    @property
    def paired_with_data(self) -> bool:
        """Only with `start: data`: the potential does not depend on the label."""
        return self.start == "data"


class TA(EnergySampler):
    """Targeted attack: ascends log p(ŷ|x), whatever becomes of log p(x).

    Examples:
        The potential is log p(ŷ|x) = f(x, ŷ) − LSE f(x, ·):

        >>> import torch
        >>> from cembench.samplers import samplers
        >>> sampler = samplers.parse({"name": "ta", "start": "noise", "steps": 40})
        >>> sampler.potential(torch.tensor([[2.0, 0.0]]), torch.tensor([0]))
        tensor([-0.1269])
    """

    name: ClassVar[str] = "ta"
    potential: ClassVar[Potential] = staticmethod(potentials.conditional)


class CS(EnergySampler):
    """Conditional sampling: ascends log p(x, ŷ).

    Examples:
        The potential is the logit, f(x, ŷ):

        >>> import torch
        >>> from cembench.samplers import samplers
        >>> sampler = samplers.parse({"name": "cs", "start": "noise", "steps": 40})
        >>> sampler.potential(torch.tensor([[2.0, 0.0]]), torch.tensor([0]))
        tensor([2.])
    """

    name: ClassVar[str] = "cs"
    potential: ClassVar[Potential] = staticmethod(potentials.joint)


class RCS(EnergySampler):
    """Reinforced conditional sampling: ascends log p(x, ŷ) + log p(x).

    Examples:
        The potential is f(x, ŷ) + LSE f(x, ·):

        >>> import torch
        >>> from cembench.samplers import samplers
        >>> sampler = samplers.parse({"name": "rcs", "start": "noise", "steps": 40})
        >>> sampler.potential(torch.tensor([[2.0, 0.0]]), torch.tensor([0]))
        tensor([4.1269])
    """

    name: ClassVar[str] = "rcs"
    potential: ClassVar[Potential] = staticmethod(potentials.reinforced)


class Confidence(EnergySampler):
    """Attack on images outside the data: makes the network confident of any class.

    The inner step of RATIO (arXiv 2003.09461) and ACET (arXiv 1812.05720).

    Attributes:
        measure: `divergence` ascends KL(uniform ‖ p(·|x)), which RATIO's code does by default;
            `maximum` ascends max_k log p(k|x), the confidence itself.

    Examples:
        The potential is 0 where the network is not confident of any class:

        >>> import torch
        >>> from cembench.samplers import samplers
        >>> sampler = samplers.parse({"name": "confidence", "start": "smooth", "eps": 1.0})
        >>> sampler.potential(torch.tensor([[3.0, 3.0], [2.0, 0.0]]), torch.tensor([0, 0]))
        tensor([0.0000, 0.4338])
    """

    name: ClassVar[str] = "confidence"
    potential: ClassVar[Potential] = staticmethod(potentials.non_uniformity)
    measure: Literal["divergence", "maximum"] = "divergence"

    @property
    def paired_with_data(self) -> bool:
        """Only with `start: data`: the potential does not depend on the label."""
        return self.start == "data"

    def objective(self, model: nn.Module, y: Tensor, context: SamplerContext) -> Objective:
        """Return the forward function and the potential that `measure` names."""
        if self.measure == "maximum":
            return model, potentials.confidence, y
        return super().objective(model, y, context)

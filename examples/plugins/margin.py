"""A sampler with a potential of its own: it climbs the margin f(x, ŷ) − max f(x, y) over y ≠ ŷ.

cembench sample CHECKPOINT --sampler margin --plugin margin
"""

from typing import ClassVar

from cembench import energy
from cembench.energy.potentials import Potential
from cembench.samplers import samplers
from cembench.samplers.energy import EnergySampler


def margin(out, target):
    """TA without its soft maximum: N×K logits and N labels to N margins."""
    others = out.float().scatter(1, target[:, None], float("-inf"))
    return energy.joint(out.float(), target) - others.amax(1)


@samplers.register
class Margin(EnergySampler):
    """Goes where no other class comes close, however unlikely the image."""

    name: ClassVar[str] = "margin"
    potential: ClassVar[Potential] = staticmethod(margin)

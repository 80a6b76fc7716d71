"""ℓ1: the sum of the changes of all values (Croce and Hein, arXiv 2103.01208)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cembench.energy.norms.ball import Ball, per_row
from cembench.util.lazy import lazy_imports

if TYPE_CHECKING:
    from torch import Generator, Tensor

with lazy_imports():
    import torch

SPARSITY = 0.05  # share of the values that a step changes
ROUNDING = 3e-5  # the official projection exceeds ε = 12 by this share of it
REFINEMENTS = 2  # Newton steps that undo the rounding of cumulative sums


class L1(Ball):
    """ℓ1: the sum of the changes of all values, of every pixel and channel."""

    name = "l1"
    library_name = "L1"
    order = 1.0
    direction = "sparse-sign"
    customary = "customary are 12 on CIFAR-10, 255 on ImageNet, 10 on MNIST"
    least, most = 0.5, 1 / 8

    @property
    def tolerance(self) -> float:
        """A share of the radius, since rounding adds up over thousands of values."""
        return max(super().tolerance, ROUNDING * self.eps)

    @staticmethod
    def steepest(gradient: Tensor, at: Tensor | None = None) -> Tensor:
        """Return equal changes of the values with the largest gradients, 5 % of all.

        One value alone would rise fastest, until it reaches 0 or 1. So the step is that of SLIDE
        (Tramèr and Boneh, arXiv 1904.13000): sparse, and without values that are at 0 or 1 already
        and would leave.
        """
        slope = gradient.flatten(1)
        if at is not None:
            here = at.flatten(1)
            slope = slope.masked_fill((here <= 0) & (slope < 0) | (here >= 1) & (slope > 0), 0)
        count = max(1, round(SPARSITY * slope.shape[1]))
        least = slope.abs().topk(count, dim=1).values[:, -1:]
        step = slope.sign() * (slope.abs() >= least)
        return (step / step.abs().sum(1, keepdim=True).clamp_min(1)).view_as(gradient)

    def project(self, x: Tensor, centre: Tensor) -> Tensor:
        """Return the nearest images in the intersection of ball and [0, 1].

        All changes shrink by the same amount, and none passes 0 or 1 (proposition 2.2). Images
        that are inside stay as they are.
        """
        delta = (x - centre).flatten(1)
        room = torch.where(delta > 0, 1 - centre.flatten(1), centre.flatten(1))
        shift = shrinkage(delta.abs(), room, self.eps)
        kept = (delta.abs() - shift).clamp_min(0).minimum(room)
        size = kept.sum(1, keepdim=True).clamp_min(1e-12)
        near = centre + (delta.sign() * kept * (self.eps / size).clamp_max(1)).view_as(x)
        return torch.where(per_row(shift > 0, x), near, x).clamp(0, 1)

    def uniform(self, centre: Tensor, generator: Generator) -> Tensor:
        """Draw exponential values with random signs, over their sum and one draw more."""
        from cembench.util.rng import uniform

        drawn = 2 * uniform(centre.shape, generator) - 1
        more = uniform((len(centre),), generator)
        size, rest = (-(-part.abs().clamp_max(1 - 1e-7)).log1p() for part in (drawn, more))
        whole = size.flatten(1).sum(1) + rest
        return (centre + self.eps * drawn.sign() * size / per_row(whole, centre)).clamp(0, 1)

    def surface(self, centre: Tensor, generator: Generator) -> Tensor:
        """Draw a Gaussian image around the centre, and project it."""
        from cembench.util.rng import normal

        return self.project(centre + normal(centre.shape, generator), centre)


def shrinkage(size: Tensor, room: Tensor, eps: float) -> Tensor:
    """Return the smallest λ ≥ 0 with Σ min(max(s − λ, 0), room) ≤ ε per row, N×1.

    The sum is piecewise linear in λ, with edges where a value begins to shrink and where it is
    gone: one sort finds the piece with the root. Sizes s and room are N×D.
    """
    edges, which = torch.cat([(size - room).clamp_min(0), size], 1).sort(1)
    shrinking = torch.where(which < size.shape[1], 1.0, -1.0).to(size.dtype).cumsum(1)
    total = size.minimum(room).sum(1, keepdim=True)
    fallen = (shrinking[:, :-1] * edges.diff(dim=1)).cumsum(1)
    left = torch.cat([total, total - fallen], 1)
    place = ((left > eps).sum(1, keepdim=True) - 1).clamp_min(0)
    rate = shrinking.gather(1, place).clamp_min(1)
    shift = edges.gather(1, place) + (left.gather(1, place) - eps) / rate
    for _ in range(REFINEMENTS):
        rest = size - shift
        rate = ((rest > 0) & (rest < room)).sum(1, keepdim=True).clamp_min(1)
        shift = shift + (rest.clamp_min(0).minimum(room).sum(1, keepdim=True) - eps) / rate
    return torch.where(total > eps, shift.clamp_min(0), 0)

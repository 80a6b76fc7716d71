"""ℓ0: how many pixels change, in any of their channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cembench.energy.norms.ball import Ball, per_row
from cembench.util.lazy import lazy_imports

if TYPE_CHECKING:
    from torch import Generator, Tensor

with lazy_imports():
    import torch


class L0(Ball):
    """ℓ0: the number of pixels that change, whatever by and in however many channels.

    Pixels are counted as in Sparse-RS (arXiv 2006.12834), not values: `eps: 24` lets 24 of the
    1024 pixels of a 32×32 image change. The ball is not convex.
    """

    name = "l0"
    library_name = "L0"
    order = 0.0
    direction = "largest"
    customary = "customary are 24 pixels on CIFAR-10, 150 on ImageNet"
    least, most = 1.0, 1 / 4

    @property
    def pixels(self) -> int:
        """How many pixels may change."""
        return int(self.eps)

    @staticmethod
    def steepest(gradient: Tensor, at: Tensor | None = None) -> Tensor:
        """Scale the gradient so that the largest change of a value is 1.

        The projection keeps the largest changes alone, as in PGD₀ (arXiv 1909.05040).
        """
        return gradient / per_row(gradient.flatten(1).abs().amax(1), gradient).clamp_min(1e-12)

    def project(self, x: Tensor, centre: Tensor) -> Tensor:
        """Keep the changes of the pixels that lie furthest from the centre, clipped to [0, 1]."""
        inside = x.clamp(0, 1)
        gain = ((x - centre).square() - (x - inside).square()).sum(1)
        chosen = torch.where(_largest(gain, self.pixels), inside, centre)
        return torch.where(per_row(self.size(inside - centre) <= self.pixels, x), inside, chosen)

    def uniform(self, centre: Tensor, generator: Generator) -> Tensor:
        """Draw pixels, as many as may change, and their values from [0, 1]."""
        from cembench.util.rng import uniform

        order = uniform((len(centre), *centre.shape[2:]), generator)
        chosen = _largest(order, self.pixels)
        return torch.where(chosen, uniform(centre.shape, generator), centre)

    def size(self, delta: Tensor) -> Tensor:
        """Return the number of pixels that change."""
        return (delta != 0).any(1).flatten(1).sum(1).to(delta.dtype)

    @classmethod
    def diameter(cls, values: int) -> float:
        """Return the number of pixels of a grey image of so many values."""
        return float(values)


def _largest(values: Tensor, count: int) -> Tensor:
    """Return where the largest values of N×H×W are, N×1×H×W."""
    flat = values.flatten(1)
    places = flat.topk(min(count, flat.shape[1]), dim=1).indices
    chosen = torch.zeros_like(flat, dtype=torch.bool).scatter(1, places, True)
    return chosen.view_as(values).unsqueeze(1)

"""ℓ∞: the largest change of a pixel."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from cembench.energy.norms.ball import Ball, per_row

if TYPE_CHECKING:
    from torch import Generator, Tensor


class Linf(Ball):
    """ℓ∞: the largest change of a pixel."""

    name = "linf"
    library_name = "Linf"
    order = math.inf
    direction = "sign"
    customary = "customary are 8/255 on CIFAR-10, 4/255 on ImageNet, 0.3 on MNIST"
    least, most = 1 / 510, 0.5

    @staticmethod
    def steepest(gradient: Tensor, at: Tensor | None = None) -> Tensor:
        """Return the signs of the gradient."""
        return gradient.sign()

    def project(self, x: Tensor, centre: Tensor) -> Tensor:
        """Clip each pixel."""
        return self.projection(centre)(x)

    def projection(self, centre: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the function that clips each pixel."""
        low, high = ((centre + edge).clamp(0, 1) for edge in (-self.eps, self.eps))
        return lambda x: x.clamp(low, high)

    def uniform(self, centre: Tensor, generator: Generator) -> Tensor:
        """Draw each pixel."""
        return (centre + self._cube(centre, generator) * self.eps).clamp(0, 1)

    def surface(self, centre: Tensor, generator: Generator) -> Tensor:
        """Draw each pixel, and scale the largest change to `eps`."""
        step = self._cube(centre, generator)
        return (centre + self.eps * (step / per_row(self.size(step), step))).clamp(0, 1)

    def size(self, delta: Tensor) -> Tensor:
        """Return the largest changes; torch's norm takes many times as long on a CPU."""
        return delta.flatten(1).abs().amax(1)

    @staticmethod
    def _cube(centre: Tensor, generator: Generator) -> Tensor:
        from cembench.util.rng import uniform

        return 2 * uniform(centre.shape, generator) - 1

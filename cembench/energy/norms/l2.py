"""ℓ2: the Euclidean length of the change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cembench.energy.norms.ball import Ball, per_row, unit

if TYPE_CHECKING:
    from torch import Generator, Tensor


class L2(Ball):
    """ℓ2: the Euclidean length of the change."""

    name = "l2"
    library_name = "L2"
    order = 2.0
    direction = "l2"
    customary = "customary are 0.5 on CIFAR-10, 3 on ImageNet, 2 on MNIST"
    least, most = 0.1, 1 / 8

    @staticmethod
    def steepest(gradient: Tensor, at: Tensor | None = None) -> Tensor:
        """Scale the gradient to length 1."""
        return unit(gradient)

    def project(self, x: Tensor, centre: Tensor) -> Tensor:
        """Scale the change to at most `eps`; clipping to [0, 1] afterwards only shortens it."""
        delta = x - centre
        shrink = (self.eps / per_row(self.size(delta), delta).clamp_min(1e-12)).clamp_max(1)
        return (centre + delta * shrink).clamp(0, 1)

    def uniform(self, centre: Tensor, generator: Generator) -> Tensor:
        """Draw a direction, and a radius that makes the volume uniform."""
        from cembench.util.rng import uniform

        delta = self._sphere(centre, generator)
        radius = uniform((len(centre),), generator) ** (1 / centre[0].numel())
        return (centre + self.eps * per_row(radius, delta) * delta).clamp(0, 1)

    def surface(self, centre: Tensor, generator: Generator) -> Tensor:
        """Draw a direction."""
        return (centre + self.eps * self._sphere(centre, generator)).clamp(0, 1)

    @staticmethod
    def _sphere(centre: Tensor, generator: Generator) -> Tensor:
        from cembench.util.rng import normal

        return unit(normal(centre.shape, generator))

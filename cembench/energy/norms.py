"""Norms of perturbations: one class per norm, with everything that depends on the norm.

A class here and its entry in `NORMS` add a norm to threat models, training, PGD, verdicts, 8-bit
rounding, sanity checks, and to the official AutoAttack if pyautoattack has it. The steps of
APGD, FAB and Square differ from norm to norm: the attacks of `autoattack-fast` have tables of the
norms that they know. Importing this module does not import torch.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeVar

from cembench.util.errors import CembenchError, ConfigError

if TYPE_CHECKING:
    from torch import Generator, Tensor

T = TypeVar("T")

LARGEST_IMAGE = 3 * 4096**2  # values of an image, C·H·W: no larger ones are taken


@dataclass(frozen=True)
class Ball(ABC):
    """All images in [0, 1] within distance `eps` of a centre. Each subclass is a norm.

    Images and centres are N×C×H×W; a `delta` is the difference of two images.

    Attributes:
        eps: the radius, in pixels on [0, 1].
        name: of the norm, in configs.
        library_name: of the norm, in pyautoattack and RobustBench.
        order: p of ℓp.
        direction: the name of the steepest direction, a key of `ascent.DIRECTIONS`.
        tolerance: by how much the size of a perturbation may exceed `eps`, because of float32
            rounding of pixels near 1.
    """

    eps: float
    name: ClassVar[str]
    library_name: ClassVar[str]
    order: ClassVar[float]
    direction: ClassVar[str]
    tolerance: ClassVar[float] = 1e-5

    @staticmethod
    @abstractmethod
    def steepest(gradient: Tensor) -> Tensor:
        """Return for each row the step of size 1 along which the gradient rises fastest."""

    @abstractmethod
    def project(self, x: Tensor, centre: Tensor) -> Tensor:
        """Return images in the ball and in [0, 1]: the nearest ones if the ball lies in [0, 1]."""

    def projection(self, centre: Tensor) -> Callable[[Tensor], Tensor]:
        """Return `project` for these centres, for many steps around them."""
        return lambda x: self.project(x, centre)

    @abstractmethod
    def uniform(self, centre: Tensor, generator: Generator) -> Tensor:
        """Draw from the uniform distribution on the ball, then clip to [0, 1]."""

    def surface(self, centre: Tensor, generator: Generator) -> Tensor:
        """Draw from the surface of the ball, then clip to [0, 1]: the initial images of APGD.

        Raises:
            CembenchError: in a norm for which APGD has no steps; its class has no such method.
        """
        raise CembenchError(f"APGD has no norm '{self.name}'; the official autoattack may have it")

    def size(self, delta: Tensor) -> Tensor:
        """Return the norm of each perturbation, N values."""
        return delta.flatten(1).norm(p=self.order, dim=1)

    @classmethod
    def diameter(cls, values: int) -> float:
        """Return the radius of a ball that holds every image of so many values, C·H·W."""
        return float(values ** (1 / cls.order))

    def require_below_diameter(self, key: str = "eps", values: int = LARGEST_IMAGE) -> None:
        """Refuse a radius, or the length of a step, that reaches every image from any other.

        Args:
            key: its place in the settings.
            values: of an image, C·H·W.

        Raises:
            ConfigError: naming the diameter, and 8/255 where 8 was given.
        """
        if self.eps < (whole := self.diameter(values)):
            return
        meant = f"; did you mean {self.eps:g}/255?" if 1 <= self.eps <= 255 else ""
        raise ConfigError.single(
            f"{self.eps:g} reaches every image, since pixels are in [0, 1] and no two images are "
            f"further apart than {whole:.4g} in {self.name}{meant}",
            *key.split("."),
        )


class Linf(Ball):
    """ℓ∞: the largest change of a pixel."""

    name = "linf"
    library_name = "Linf"
    order = math.inf
    direction = "sign"

    @staticmethod
    def steepest(gradient: Tensor) -> Tensor:
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

    @staticmethod
    def _cube(centre: Tensor, generator: Generator) -> Tensor:
        from cembench.util.rng import uniform

        return 2 * uniform(centre.shape, generator) - 1


class L2(Ball):
    """ℓ2: the Euclidean length of the change."""

    name = "l2"
    library_name = "L2"
    order = 2.0
    direction = "l2"

    @staticmethod
    def steepest(gradient: Tensor) -> Tensor:
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


NORMS: dict[str, type[Ball]] = {"linf": Linf, "l2": L2}


def by_norm(table: Mapping[str, T], norm: str, owner: str) -> T:
    """Return the entry of a norm in a table by norm, such as `NORMS`.

    Raises:
        CembenchError: when the table of `owner` does not have it, naming the norms that it has.
    """
    if norm not in table:
        raise CembenchError(f"{owner} has no norm '{norm}'; known: {', '.join(table)}")
    return table[norm]


def unit(delta: Tensor) -> Tensor:
    """Scale each row to Euclidean length 1; a row of zeros stays zero."""
    return delta / per_row(delta.flatten(1).norm(dim=1), delta).clamp_min(1e-12)


def per_row(values: Tensor, like: Tensor) -> Tensor:
    """Return N values in a shape that broadcasts over the rows of a tensor N×…."""
    return values.reshape(-1, *(1,) * (like.dim() - 1))

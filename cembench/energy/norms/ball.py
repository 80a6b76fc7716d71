"""Ball: the images within a distance of another one, whatever the norm. No torch is imported."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cembench.util.errors import CembenchError, ConfigError

if TYPE_CHECKING:
    from torch import Generator, Tensor

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
        customary: radii that papers use, in words.
        least: a smaller radius is of another norm's scale.
        most: a larger one too, as a share of the diameter.
        direction: the name of the steepest direction, a key of `ascent.DIRECTIONS`.
    """

    eps: float
    name: ClassVar[str]
    library_name: ClassVar[str]
    order: ClassVar[float]
    direction: ClassVar[str]
    customary: ClassVar[str] = ""
    least: ClassVar[float] = 0.0
    most: ClassVar[float] = 1.0

    @property
    def tolerance(self) -> float:
        """By how much the size of a perturbation may exceed `eps`, because of float32 rounding."""
        return 1e-5

    @property
    def convex(self) -> bool:
        """Whether the ball is convex, so that projected gradient ascent suits it."""
        return self.order >= 1

    @property
    def dual_order(self) -> float:
        """The q of the dual norm ℓq, 1/p + 1/q = 1: how steep a gradient is to steps in ℓp."""
        return math.inf if self.order <= 1 else 1 / (1 - 1 / self.order)

    @staticmethod
    @abstractmethod
    def steepest(gradient: Tensor, at: Tensor | None = None) -> Tensor:
        """Return for each row the step of size 1 along which the gradient rises fastest.

        A norm may look at the images `at` which the step begins.
        """

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

    def caution(self, values: int) -> str:
        """Return a warning of a radius of another norm's scale; nothing for a sensible one.

        Args:
            values: of an image, C·H·W.
        """
        small, large = 0 < self.eps < self.least, self.eps > self.most * self.diameter(values)
        if not small and not large:
            return ""
        size = "small" if small else "large"
        return f"ε = {self.eps:.4g} is unusually {size} in {self.name}; {self.customary}"


def unit(delta: Tensor) -> Tensor:
    """Scale each row to Euclidean length 1; a row of zeros stays zero."""
    return delta / per_row(delta.flatten(1).norm(dim=1), delta).clamp_min(1e-12)


def per_row(values: Tensor, like: Tensor) -> Tensor:
    """Return N values in a shape that broadcasts over the rows of a tensor N×…."""
    return values.reshape(-1, *(1,) * (like.dim() - 1))

"""Density and coverage (Naeem et al., arXiv 2002.09797): fidelity and diversity by neighbours.

Precision counts a sample once however many real images it is near, and recall builds balls around
samples; both are fooled by outliers. Here all balls are around real images.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from cembench.evaluation.metrics import Metric
from cembench.util.errors import CembenchError
from cembench.util.lazy import lazy_imports
from cembench.util.settings import Count

with lazy_imports():
    import torch
    from torch import Tensor

    from cembench.evaluation.extractors.features import ImageFeatures
    from cembench.evaluation.metrics.functional import blocks, distances


class Neighbours(Metric):
    """A count over the balls of real images, each as wide as to its k-th neighbour.

    Attributes:
        k: that neighbour's number; 5, as in the paper.
    """

    better: ClassVar[Literal["higher", "lower"]] = "higher"
    k: Count = 5

    def counts(self, samples: ImageFeatures, real: ImageFeatures) -> Tensor:
        """Return how many samples lie in the ball of each real image, M integers."""
        centres = real.points
        if self.k >= len(centres):
            raise CembenchError(f"k is {self.k}, of {len(centres)} real images")

        def make() -> Tensor:
            fake = samples.points.to(real.device, torch.double)
            parts = zip(blocks(centres), blocks(real.radii(self.k)), strict=True)
            return torch.cat([_inside(part.to(fake), radii, fake) for part, radii in parts])

        return samples.once((real, self.k), make)


def _inside(centres: Tensor, radii: Tensor, points: Tensor) -> Tensor:
    """Return how many points lie in each ball."""
    return (distances(centres, points) < radii[:, None]).sum(1)


class Density(Neighbours):
    """The mean number of balls that a sample lies in, over k; 1 for the real images, no bound."""

    name: ClassVar[str] = "density"

    def measure(self, samples: ImageFeatures, real: ImageFeatures) -> float:
        """Count sample by sample."""
        inside = int(self.counts(samples, real).sum())
        return inside / (self.k * len(samples.points))


class Coverage(Neighbours):
    """The share of balls with a sample in them."""

    name: ClassVar[str] = "coverage"

    def measure(self, samples: ImageFeatures, real: ImageFeatures) -> float:
        """Count ball by ball."""
        return float((self.counts(samples, real) > 0).double().mean())

"""Authenticity (Alaa et al., arXiv 2102.08921): whether samples are copies of training images."""

from __future__ import annotations

from typing import ClassVar, Literal

from cembench.evaluation.metrics import Metric
from cembench.util.errors import CembenchError
from cembench.util.lazy import lazy_imports

with lazy_imports():
    from cembench.evaluation.extractors.features import ImageFeatures
    from cembench.evaluation.metrics.functional import nearest


class AuthPct(Metric):
    """The percentage of authentic samples; copies of training images have 0.

    A sample is authentic if it is farther from its nearest training image than that image is from
    its own nearest training image. Real images outside the training set tell what to expect.
    """

    name: ClassVar[str] = "authpct"
    better: ClassVar[Literal["higher", "lower"]] = "higher"
    against: ClassVar[Literal["reference", "train"]] = "train"

    def measure(self, samples: ImageFeatures, real: ImageFeatures) -> float:
        """Compare distances in feature space, as dgm-eval does (arXiv 2306.04675)."""
        known = real.all_points.to(real.device)
        if len(known) < 2:
            raise CembenchError("one training image has no neighbour")
        distance, rows = (found[:, 0].cpu() for found in nearest(samples.points.to(known), known))
        return float((real.to_nearest(rows) < distance).double().mean() * 100)

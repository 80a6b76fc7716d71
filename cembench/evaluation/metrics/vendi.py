"""Vendi score (Friedman and Dieng, arXiv 2210.02410): the effective number of different images."""

from __future__ import annotations

from typing import ClassVar, Literal

from cembench.evaluation.metrics import Metric
from cembench.util.lazy import lazy_imports

with lazy_imports():
    import torch
    from torch import Tensor
    from torch.nn.functional import normalize

    from cembench.evaluation.extractors.features import ImageFeatures
    from cembench.evaluation.metrics.functional import blocks


class Vendi(Metric):
    """exp of the entropy of the eigenvalues of K/N, where K has the cosines of features.

    It is 1 for images that are all alike, N for features that are all orthogonal, and needs no real
    images; their own score tells what to expect. It sees variety, not quality.
    """

    name: ClassVar[str] = "vendi"
    better: ClassVar[Literal["higher", "lower"]] = "higher"

    def measure(self, samples: ImageFeatures, real: ImageFeatures) -> float:
        """Score the samples alone."""
        features = samples.features.pool.to(samples.device)
        values = torch.linalg.eigvalsh(_gram(features) / len(features)).clamp_min(0)
        return float(torch.special.entr(values).sum().exp())


def _gram(features: Tensor) -> Tensor:
    """Return the products of features N×D of length 1, the smaller of N×N and D×D.

    Both have the same positive eigenvalues.
    """
    if len(features) <= features.shape[1]:
        unit = normalize(features.double())
        return unit @ unit.T
    parts = (normalize(part.double()) for part in blocks(features))
    sums = features.new_zeros(features.shape[1], features.shape[1], dtype=torch.double)
    for part in parts:
        sums.addmm_(part.T, part)
    return sums

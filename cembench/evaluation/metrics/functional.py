"""How well generated images match real ones: pure functions of features.

FID, IS, precision and recall are torch-fidelity's functions; KID comes with a standard error and
with the gain of one set over another, which need the kernel's row sums.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cembench.evaluation.statistics import Z
from cembench.util.lazy import lazy_imports

with lazy_imports():
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric

BLOCK = 1 << 24  # kernel values held at once, 128 MiB


def frechet_distance(fake: Tensor, real: Tensor) -> float:
    """Return the Fréchet distance of two Gaussians fitted to features, N×D and M×D.

    Source: Heusel et al., arXiv 1706.08500. It is biased upward in small samples.
    """
    fake, real = fake.double().cpu(), real.double().cpu()
    if min(len(fake), len(real)) < fake.shape[1]:
        return _frechet_of_few(fake, real)
    statistics = [fid_features_to_statistics(part) for part in (fake, real)]
    return float(fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"])


def _frechet_of_few(fake: Tensor, real: Tensor) -> float:
    """Return the same without D×D matrices: tr √(Σ₁Σ₂) is the nuclear norm of A·Bᵀ.

    A and B are the centred features, so that Σ₁ = AᵀA and Σ₂ = BᵀB. With fewer images than
    features it is ten times faster, and exact where the covariances are singular.
    """
    apart = (fake.mean(0) - real.mean(0)).square().sum()
    a, b = ((part - part.mean(0)) / math.sqrt(len(part) - 1) for part in (fake, real))
    shared = torch.linalg.svdvals(a @ b.T).sum()
    return float(apart + a.square().sum() + b.square().sum() - 2 * shared)


def inception_score(logits: Tensor, splits: int) -> tuple[float, float]:
    """Return mean and deviation over splits of exp E KL(p(y|x) ‖ p(y)), from logits N×K.

    Source: Salimans et al., arXiv 1606.03498.
    """
    found = isc_features_to_metric(logits, splits=splits)
    return found["inception_score_mean"], found["inception_score_std"]


def precision_recall(fake: Tensor, real: Tensor, neighbours: int = 3) -> tuple[float, float]:
    """Return the share of each set within the other's k-nearest-neighbour balls.

    Source: Kynkäänniemi et al., arXiv 1904.06991.
    """
    found = prc_features_to_metric(
        fake,
        real,
        prc_neighborhood=neighbours,
        prc_batch_size=1_000,
        save_cpu_ram=True,
        verbose=False,
    )
    return found["precision"], found["recall"]


@dataclass(frozen=True)
class Estimate:
    """A statistic of two samples, and what it is without each one of their members."""

    value: float
    without_fake: Tensor
    without_real: Tensor

    @property
    def error(self) -> float:
        """The jackknife standard error of a two-sample statistic."""
        return math.sqrt(_variance(self.without_fake) + _variance(self.without_real))

    def minus(self, other: Estimate) -> Estimate:
        """Return the difference from another, member by member; both have the same real images."""
        return Estimate(
            self.value - other.value,
            self.without_fake - other.without_fake,
            self.without_real - other.without_real,
        )

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of a normal distribution."""
        return self.value - Z * self.error, self.value + Z * self.error


def kid(fake: Tensor, real: Tensor) -> Estimate:
    """Return the kernel inception distance: the unbiased squared MMD, kernel (x·y/D + 1)³.

    All images are used at once, which is torch-fidelity's figure with one subset of all of them.

    Args:
        fake: features, N×D with N ≥ 2.
        real: features, M×D with M ≥ 2.

    Source: Bińkowski et al., arXiv 1801.01401.
    """
    fake, real = fake.double(), real.double()
    n, m = len(fake), len(real)
    own, theirs = _within(fake), _within(real)
    rows, columns = _across(fake, real)

    def statistic(own: Tensor, theirs: Tensor, across: Tensor, n: int, m: int) -> Tensor:
        return own / (n * (n - 1)) + theirs / (m * (m - 1)) - 2 * across / (n * m)

    a, b, c = own.sum(), theirs.sum(), rows.sum()
    return Estimate(
        float(statistic(a, b, c, n, m)),
        statistic(a - 2 * own, b, c - rows, n - 1, m),
        statistic(a, b - 2 * theirs, c - columns, n, m - 1),
    )


def _variance(without: Tensor) -> float:
    n = len(without)
    return float((without - without.mean()).square().sum() * (n - 1) / n)


def _within(x: Tensor) -> Tensor:
    """Return each row's kernel values with all other rows, summed."""
    sums = torch.cat([_kernel(part, x).sum(1) for part in x.split(_rows(x))])
    return sums - (x.square().sum(1) / x.shape[1] + 1) ** 3


def _across(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    rows, columns = [], torch.zeros(len(y), dtype=y.dtype)
    for part in x.split(_rows(y)):
        values = _kernel(part, y)
        rows.append(values.sum(1))
        columns += values.sum(0)
    return torch.cat(rows), columns


def _rows(y: Tensor) -> int:
    return max(1, BLOCK // len(y))


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3

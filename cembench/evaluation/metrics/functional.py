"""How well generated images match real ones: pure functions of features.

FID and IS are torch-fidelity's functions; KID comes with a standard error and with the gain of one
set over another, which need the kernel's row sums. Precision and recall are computed as torch-
fidelity does, but the balls of the real images only once for several sets of samples.

Figures of pairs of images (KID, precision, recall) take time that grows with the square of their
number. They are taken of at most `MOST` images of each set; memory is bounded in any case.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cembench.evaluation.statistics import Z
from cembench.util.lazy import lazy_imports

with lazy_imports():
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_isc import isc_features_to_metric

BLOCK = 1 << 24  # kernel values held at once, 128 MiB
MOST = 10_000  # images of a set that are compared pair by pair
ROWS = 1000  # of a block of distances

Gaussian = dict[str, np.ndarray]


def frechet_distance(
    fake: Tensor, real: Tensor, gaussian: Callable[[], Gaussian] | None = None
) -> float:
    """Return the Fréchet distance of two Gaussians fitted to features, N×D and M×D.

    Args:
        fake: features, N×D.
        real: features, M×D.
        gaussian: returns `gaussian_of` the real features, where it is kept.

    Source: Heusel et al., arXiv 1706.08500. It is biased upward in small samples.
    """
    if min(len(fake), len(real)) < fake.shape[1]:
        return _frechet_of_few(fake.double().cpu(), real.double().cpu())
    statistics = gaussian_of(fake), gaussian_of(real) if gaussian is None else gaussian()
    return float(fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"])


def gaussian_of(features: Tensor) -> Gaussian:
    """Return mean `mu` (D) and covariance `sigma` (D×D) of features N×D, in float64.

    Many features are gone through in parts, so that no second copy of them is made.
    """
    if len(features) <= MOST:
        return fid_features_to_statistics(features.double().cpu())
    mean = features.mean(0, dtype=torch.double)
    sigma = mean.new_zeros(len(mean), len(mean))
    for part in blocks(features):
        centred = part.double() - mean
        sigma.addmm_(centred.T, centred)
    return {"mu": mean.cpu().numpy(), "sigma": (sigma / (len(features) - 1)).cpu().numpy()}


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


def precision_recall(
    fake: Tensor, real: Tensor, neighbours: int = 3, radii: Tensor | None = None
) -> tuple[float, float]:
    """Return the share of each set within the other's k-nearest-neighbour balls.

    Args:
        fake: features, N×D.
        real: features, M×D.
        neighbours: k.
        radii: `ball_radii` of the real features, where they are known.

    Source: Kynkäänniemi et al., arXiv 1904.06991.
    """
    known = ball_radii(real, neighbours) if radii is None else radii
    precise, recalled = [], torch.zeros_like(real[:, 0], dtype=torch.bool)
    for part, own in zip(blocks(fake), blocks(ball_radii(fake, neighbours)), strict=True):
        apart = distances(part, real)
        precise.append((apart <= known).any(dim=1))
        recalled |= (apart <= own[:, None]).any(dim=0)
    return torch.cat(precise).float().mean().item(), recalled.float().mean().item()


def ball_radii(points: Tensor, k: int) -> Tensor:
    """Return the distance of points N×D to their k-th neighbours, themselves excluded, N."""
    parts = [distances(part, points).kthvalue(k + 1).values for part in blocks(points)]
    return torch.cat(parts)


def blocks(values: Tensor) -> tuple[Tensor, ...]:
    """Return the rows of a tensor in parts of at most a thousand."""
    return values.split(ROWS)


def distances(part: Tensor, points: Tensor) -> Tensor:
    """Return Euclidean distances of some points, N×D, to all, M×D: N×M."""
    return torch.cat([torch.cdist(part, block) for block in blocks(points)], dim=1)


def nearest(points: Tensor, known: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
    """Return the distances of points N×D to the k nearest of M×D, rising, and their rows: N×k.

    Both are gone through in parts, in float64.
    """
    found = [_nearest(part.double(), known, k) for part in blocks(points)]
    return torch.cat([best for best, _ in found]), torch.cat([rows for _, rows in found])


def _nearest(points: Tensor, known: Tensor, k: int) -> tuple[Tensor, Tensor]:
    best = points.new_full((len(points), k), torch.inf)
    rows = torch.zeros_like(best, dtype=torch.long)
    every = torch.arange(len(known), device=points.device)
    for numbers, block in zip(blocks(every), blocks(known), strict=True):
        apart = torch.cat([best, torch.cdist(points, block.double())], dim=1)
        rows = torch.cat([rows, numbers.expand(len(points), -1)], dim=1)
        best, places = apart.topk(k, dim=1, largest=False)
        rows = rows.gather(1, places)
    return best, rows


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


def kid(fake: Tensor, real: Tensor, real_sums: Tensor | None = None) -> Estimate:
    """Return the kernel inception distance: the unbiased squared MMD, kernel (x·y/D + 1)³.

    All images are used at once, which is torch-fidelity's figure with one subset of all of them.

    Args:
        fake: features, N×D with N ≥ 2.
        real: features, M×D with M ≥ 2.
        real_sums: `kernel_sums` of the real features, where they are known.

    Source: Bińkowski et al., arXiv 1801.01401.
    """
    fake, real = fake.double(), real.double()
    n, m = len(fake), len(real)
    own, theirs = kernel_sums(fake), kernel_sums(real) if real_sums is None else real_sums
    rows, columns = _across(fake, real)

    def statistic(own: Tensor, theirs: Tensor, across: Tensor, n: int, m: int) -> Tensor:
        return own / (n * (n - 1)) + theirs / (m * (m - 1)) - 2 * across / (n * m)

    own, theirs, rows, columns = (sums.cpu() for sums in (own, theirs, rows, columns))
    a, b, c = own.sum(), theirs.sum(), rows.sum()
    return Estimate(
        float(statistic(a, b, c, n, m)),
        statistic(a - 2 * own, b, c - rows, n - 1, m),
        statistic(a, b - 2 * theirs, c - columns, n, m - 1),
    )


def _variance(without: Tensor) -> float:
    n = len(without)
    return float((without - without.mean()).square().sum() * (n - 1) / n)


def kernel_sums(x: Tensor) -> Tensor:
    """Return each row's kernel values with all other rows of N×D, summed, N in float64.

    Values of pairs stand on both sides of the diagonal, and are computed once.
    """
    x = x.double()
    sums = -((x.square().sum(1) / x.shape[1] + 1) ** 3)
    size = _rows(x)
    for begin in range(0, len(x), size):
        values = _kernel(x[begin : begin + size], x[begin:])
        sums[begin : begin + size] += values.sum(1)
        sums[begin + size :] += values[:, size:].sum(0)
    return sums


def _across(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    rows, columns = [], torch.zeros_like(y[:, 0])
    for part in x.split(_rows(y)):
        values = _kernel(part, y)
        rows.append(values.sum(1))
        columns += values.sum(0)
    return torch.cat(rows), columns


def _rows(y: Tensor) -> int:
    return max(1, BLOCK // len(y))


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T).div_(x.shape[1]).add_(1).pow_(3)

"""Statistics of counts and means: intervals, paired differences, corrected p-values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from cembench.util.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

ONE_SIDED = 0.05  # probability that a one-sided bound is wrong
Z = 1.959964  # the 97.5 % quantile of the normal distribution
LARGE = 1e15  # sums of squares of larger numbers may leave float32


class Rate(Settings):
    """A proportion as a count.

    Attributes:
        correct: images classified as labelled.
        images: images in all.
        low: lower end of the 95 % Wilson interval of the proportion.
        high: its upper end.
    """

    correct: int
    images: int
    low: float
    high: float

    @property
    def accuracy(self) -> float:
        """The proportion of correct images."""
        return self.correct / self.images


class MeanStd(Settings):
    """A mean over images, such as that of LSE f(x, ·) = log p(x) + log Z.

    Attributes:
        mean: the mean.
        std: the standard deviation, with the number of images as divisor.
        images: how many.
    """

    mean: float
    std: float
    images: int


def wilson(correct: int, images: int) -> tuple[float, float]:
    """Return the 95 % Wilson interval of a proportion (Wilson 1927)."""
    from scipy.stats import binomtest  # slow to import, and protocols need no statistics

    interval = binomtest(correct, images).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def most_found(found: int, sample: int, whole: int, error: float = ONE_SIDED) -> int:
    """Return the upper end of the one-sided 95 % interval of a count, from a random sample.

    It is the largest number of hits among all for which a sample holds as few as were found, or
    fewer, with a probability above 5 % (hypergeometric; the exact interval of Clopper and Pearson
    1934 for a finite population).

    Args:
        found: hits in the sample.
        sample: its size.
        whole: from how many it was drawn.
        error: the probability that the bound is too low, in place of 5 %.
    """
    from scipy.stats import hypergeom

    counts = range(found, whole - sample + found + 1)
    likely = hypergeom.cdf(found, whole, list(counts), sample) > error
    return counts[int(likely.sum()) - 1]


def rate(correct: pd.Series) -> Rate:
    """Return the proportion of true values in a column of booleans."""
    count, images = int(correct.sum()), len(correct)
    low, high = wilson(count, images)
    return Rate(correct=count, images=images, low=low, high=high)


def mean_std(values: pd.Series) -> MeanStd:
    """Return the mean and the standard deviation of a column of numbers."""
    values = widened(values)
    return MeanStd(mean=float(values.mean()), std=float(values.std(ddof=0)), images=len(values))


def widened(values: pd.Series) -> pd.Series:
    """Return a column of numbers, in float64 where sums of their squares may leave float32."""
    return values.astype("float64") if values.abs().max() > LARGE else values


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return a median with its 95 % interval, from numbers from 0 on, infinity included.

    The ends are order statistics: of n values the k-th smallest and the k-th largest enclose the
    median unless fewer than k values lie on one side of it, with k the largest for which that has
    a probability of 2.5 % at most on each side (Thompson 1936, binomial). For fewer than six values
    they are 0 and infinity.
    """
    from scipy.stats import binom

    ranked, count = sorted(values), len(values)
    rank = int(binom.ppf(0.025, count, 0.5))
    middle = (ranked[(count - 1) // 2] + ranked[count // 2]) / 2
    return (middle, ranked[rank - 1], ranked[-rank]) if rank else (middle, 0.0, math.inf)


def paired_interval(lost: float, won: float, images: int) -> tuple[float, float]:
    """Return the 95 % interval of a paired difference of proportions.

    Agresti and Min (2005): half a pair is added to each of the four cells, then Wald's formula.

    Args:
        lost: pairs that the first alone gets right.
        won: pairs that the second alone gets right.
        images: pairs in all.
    """
    b, c, n = lost + 0.5, won + 0.5, images + 2
    middle = (c - b) / n
    half = Z * ((b + c - (c - b) ** 2 / n) ** 0.5) / n
    return max(-1.0, middle - half), min(1.0, middle + half)


def half_width(values: Sequence[float] | pd.Series) -> float:
    """Return half the 95 % t-interval of a mean; NaN for fewer than two values."""
    count = len(values)
    if count < 2:
        return math.nan
    middle = sum(values) / count
    deviation = math.sqrt(sum((value - middle) ** 2 for value in values) / (count - 1))
    return _quantile(count - 1) * deviation / math.sqrt(count)


@cache
def _quantile(freedom: int) -> float:
    from scipy.special import stdtrit  # slow to import, and protocols need no statistics

    return float(stdtrit(freedom, 0.975))


def holm(p_values: list[float]) -> list[float]:
    """Return p-values adjusted for their number (Holm 1979): each holds over all of them."""
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, number in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[number]))
        adjusted[number] = highest
    return adjusted

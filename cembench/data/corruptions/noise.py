"""Noise: Gaussian, shot, impulse, speckle.

Corruptions take an image, H×W×C, float64 in [0, 1], the random numbers of that image and the
parameters of a severity; they return an image of the same shape, which may leave [0, 1].
"""

from __future__ import annotations

import numpy as np
from numpy.random import RandomState


def gaussian_noise(x: np.ndarray, random: RandomState, sigma: float) -> np.ndarray:
    """Add normal noise."""
    return x + random.normal(size=x.shape, scale=sigma)


def shot_noise(x: np.ndarray, random: RandomState, photons: float) -> np.ndarray:
    """Replace each value by a Poisson count over the mean count of white, `photons`."""
    return random.poisson(x * photons) / photons


def impulse_noise(x: np.ndarray, random: RandomState, amount: float) -> np.ndarray:
    """Set a share of the values to 0 or 1, half each."""
    hit = random.random_sample(x.shape) <= amount
    return np.where(hit, random.random_sample(x.shape) <= 0.5, x)


def speckle_noise(x: np.ndarray, random: RandomState, sigma: float) -> np.ndarray:
    """Add normal noise that is proportional to each value."""
    return x + x * random.normal(size=x.shape, scale=sigma)

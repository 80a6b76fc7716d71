"""Blur: defocus, glass, motion, zoom, Gaussian. Arguments as in `noise.py`."""

from __future__ import annotations

from functools import cache
from math import ceil, cos, radians, sin

import numpy as np
from numpy.random import RandomState
from scipy import ndimage


def gaussian_blur(x: np.ndarray, random: RandomState, sigma: float) -> np.ndarray:
    """Smooth with a Gaussian."""
    return ndimage.gaussian_filter(x, (sigma, sigma, 0), mode="nearest")


def defocus_blur(x: np.ndarray, random: RandomState, radius: float, sigma: float) -> np.ndarray:
    """Smooth with a disc, whose edge is smoothed by a Gaussian."""
    return ndimage.correlate(x, disc(radius, sigma)[..., None], mode="mirror")


def disc(radius: float, sigma: float) -> np.ndarray:
    """Return the kernel of a disc, smoothed by a Gaussian of 3 values, of 5 beyond radius 8."""
    half, reach = (8, 1) if radius <= 8 else (int(radius), 2)
    across = np.arange(-half, half + 1) ** 2
    kernel = (across[:, None] + across <= radius**2).astype(float)
    edge = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    kernel, edge = kernel / kernel.sum(), edge / edge.sum()
    for axis in (0, 1):
        kernel = ndimage.correlate1d(kernel, edge, axis, mode="mirror")
    used = kernel.any(0)
    return kernel[used][:, used]


def glass_blur(
    x: np.ndarray, random: RandomState, sigma: float, reach: int, times: int
) -> np.ndarray:
    """Smooth, let each pixel take the value of a near one, `times` over, and smooth again."""
    smooth = np.floor(gaussian_blur(x, random, sigma) * 255) / 255
    moved = smooth.reshape(-1, x.shape[2])
    for _ in range(times):
        moved = moved[_near(x.shape[0], x.shape[1], random, reach)]
    return gaussian_blur(moved.reshape(x.shape), random, sigma)


def _near(height: int, width: int, random: RandomState, reach: int) -> np.ndarray:
    """Return the number of the pixel whose value each pixel takes, one after the other.

    The last pixel is first, so a pixel takes what one below or to the right of it took before:
    pixels are followed to the one that nothing was written to.
    """
    rows = np.arange(height - reach, reach, -1)[:, None]
    columns = np.arange(width - reach, reach, -1)
    to = random.randint(-reach, reach, size=(rows.size, columns.size, 2))
    own, taken = rows * width + columns, (rows + to[..., 1]) * width + columns + to[..., 0]
    count = height * width
    written = np.zeros(count, dtype=bool)
    written[own] = True
    after = np.arange(2 * count)  # each pixel as it was, and as it becomes
    after[count + own] = taken + count * (written[taken] & (taken > own))
    while not np.array_equal(follow := after[after], after):
        after = follow
    return np.where(written, after[count:], np.arange(count))


def motion_blur(x: np.ndarray, random: RandomState, radius: int, sigma: float) -> np.ndarray:
    """Smear in a random direction within 45° of the horizontal."""
    return smeared(x, radius, sigma, random.uniform(-45, 45))


def smeared(x: np.ndarray, radius: int, sigma: float, angle: float) -> np.ndarray:
    """Return an image smeared by half a Gaussian along an angle, in 8 bits.

    That is ImageMagick's motion blur, with which the published corruptions were made.
    """
    steps = np.arange(2 * radius + 1)
    kernel = np.exp(-(steps**2) / (2 * sigma**2))
    height, width = x.shape[:2]
    far = 2 * radius
    padded = np.pad(x, ((far, far), (far, far), (0, 0)), mode="edge")
    total = np.zeros_like(x)
    for step, weight in zip(steps, kernel / kernel.sum(), strict=True):
        top = far + ceil(step * sin(radians(angle)) - 0.5)
        left = far + ceil(step * cos(radians(angle)) - 0.5)
        total += weight * padded[top : top + height, left : left + width]
    return np.round(total * 255) / 255


def zoom_blur(x: np.ndarray, random: RandomState, stop: float, step: float) -> np.ndarray:
    """Average the image with enlargements from 1 to `stop`."""
    height, width, channels = x.shape
    down, across = (_enlargements(side, stop, step) for side in (height, width))
    tall = (down @ x.reshape(height, -1)).reshape(-1, height, width, channels)
    total = np.tensordot(across, tall, axes=((0, 2), (0, 2)))  # over enlargements and columns
    return (x + total.swapaxes(0, 1)) / (len(down) + 1)


@cache
def _enlargements(side: int, stop: float, step: float) -> np.ndarray:
    """Return what enlarges a side by each factor, F×side×side: weights of the old pixels."""
    unit = np.eye(side)[..., None]
    factors = np.arange(1, stop, step)
    return np.stack([enlarged(unit, factor, across=False)[..., 0] for factor in factors])


def enlarged(x: np.ndarray, factor: float, across: bool = True) -> np.ndarray:
    """Return the centre of an image, enlarged to its size; unless `across`, its height alone."""
    factors = factor, factor if across else 1
    sides = [_middle(n, ceil(n / f)) for n, f in zip(x.shape, factors, strict=False)]
    large = ndimage.zoom(x[tuple(sides)], (*factors, 1), order=1)
    return large[tuple(map(_middle, large.shape[:2], x.shape[:2]))]


def _middle(whole: int, part: int) -> slice:
    start = (whole - part) // 2
    return slice(start, start + part)

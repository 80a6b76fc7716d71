"""Digital corruptions: contrast, elastic transform, pixelation, JPEG, saturation.

Arguments are as in `noise.py`.
"""

from __future__ import annotations

from io import BytesIO

import numpy as np
from numpy.random import RandomState
from PIL import Image
from scipy import ndimage


def contrast(x: np.ndarray, random: RandomState, factor: float) -> np.ndarray:
    """Draw each channel towards its mean."""
    mean = x.mean((0, 1), keepdims=True)
    return (x - mean) * factor + mean


def elastic_transform(
    x: np.ndarray, random: RandomState, alpha: float, sigma: float, affine: float
) -> np.ndarray:
    """Move three points of the image at random, then every pixel by smooth noise.

    Args:
        x: the image.
        random: its random numbers.
        alpha: the size of the noise, like all lengths as a share of the shorter side.
        sigma: its smoothness.
        affine: how far the points move at most.
    """
    side, shape = min(x.shape[:2]), x.shape[:2]
    moved = _affine(x, random.uniform(-affine * side, affine * side, size=(3, 2)))
    noise = [random.uniform(-1, 1, size=shape) for _ in range(2)]
    right, down = (
        ndimage.gaussian_filter(n, sigma * side, mode="reflect", truncate=3) * alpha * side
        for n in noise
    )
    rows, columns = np.indices(shape)
    places = np.stack([rows + down, columns + right])
    return np.stack(
        [ndimage.map_coordinates(one, places, order=1, mode="reflect") for one in _channels(moved)],
        axis=2,
    )


def _affine(x: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return an image under the affine map that moves three points by `offsets`, 3×2 (x, y)."""
    centre, third = np.array(x.shape[1::-1]) // 2, min(x.shape[:2]) // 3
    points = centre + third * np.array([[1.0, 1], [1, -1], [-1, -1]])
    ones = np.ones((3, 1))
    inverse = np.linalg.solve(np.hstack([points + offsets, ones]), points)  # target to source
    linear, shift = inverse[:2].T[::-1, ::-1], inverse[2][::-1]
    moved = [
        ndimage.affine_transform(one, linear, shift, order=1, mode="mirror") for one in _channels(x)
    ]
    return np.stack(moved, axis=2)


def pixelate(x: np.ndarray, random: RandomState, share: float) -> np.ndarray:
    """Reduce the image to a share of its sides, and enlarge it again, by boxes."""
    height, width = x.shape[:2]
    small = max(1, int(width * share)), max(1, int(height * share))
    picture = _picture(x).resize(small, Image.Resampling.BOX)
    return _values(picture.resize((width, height), Image.Resampling.BOX), x)


def jpeg_compression(x: np.ndarray, random: RandomState, quality: int) -> np.ndarray:
    """Write the image as JPEG and read it again."""
    file = BytesIO()
    _picture(x).save(file, "JPEG", quality=quality)
    return _values(Image.open(file), x)


def saturate(x: np.ndarray, random: RandomState, factor: float, amount: float) -> np.ndarray:
    """Scale and shift the saturation of HSV; grey in a colour image is a red without saturation."""
    if x.shape[2] == 1:
        return x
    value, least = x.max(2, keepdims=True), x.min(2, keepdims=True)
    coloured = value > least
    depth = np.where(coloured, (value - x) / np.where(coloured, value - least, 1), [0, 1, 1])
    saturation = np.where(coloured, (value - least) / np.where(value > 0, value, 1), 0)
    return value * (1 - np.clip(saturation * factor + amount, 0, 1) * depth)


def _channels(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(x, 2, 0)


def _picture(x: np.ndarray) -> Image.Image:
    values = np.round(x * 255).astype(np.uint8)
    return Image.fromarray(values if x.shape[2] == 3 else values[..., 0])


def _values(picture: Image.Image, x: np.ndarray) -> np.ndarray:
    return (np.asarray(picture) / 255).reshape(x.shape)

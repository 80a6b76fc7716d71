"""Weather: snow, frost, fog, brightness, spatter. Arguments as in `noise.py`."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.random import RandomState
from PIL import Image

from cembench.data.corruptions.blur import enlarged, gaussian_blur, smeared

GREY = np.array([0.299, 0.587, 0.114])
TEXTURES = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")
ROOM = 1.1  # of an enlarged texture, to choose a place in
WATER, MUD = np.array([175, 238, 238]) / 255, np.array([63, 42, 20]) / 255


def snow(
    x: np.ndarray,
    random: RandomState,
    mean: float,
    deviation: float,
    zoom: float,
    least: float,
    radius: int,
    sigma: float,
    kept: float,
) -> np.ndarray:
    """Whiten the image, and add falling flakes and the same flakes turned by 180°."""
    flakes = random.normal(size=x.shape[:2], loc=mean, scale=deviation)
    flakes = enlarged(flakes[..., None], zoom)
    flakes = np.floor(np.clip(np.where(flakes < least, 0, flakes), 0, 1) * 255) / 255
    flakes = smeared(flakes, radius, sigma, random.uniform(-135, -45))
    white = np.maximum(x, _grey(x) * 1.5 + 0.5)
    return kept * x + (1 - kept) * white + flakes + np.rot90(flakes, 2)


def frost(
    x: np.ndarray, random: RandomState, kept: float, added: float, reduction: int
) -> np.ndarray:
    """Add a random part of a photograph of frost, reduced in size."""
    height, width = x.shape[:2]
    texture = _texture(random.randint(len(TEXTURES)), reduction, height, width)
    top = random.randint(0, texture.shape[0] - height)
    left = random.randint(0, texture.shape[1] - width)
    part = texture[top : top + height, left : left + width]
    return kept * x + added * (part if x.shape[2] == 3 else _grey(part))


@cache
def _texture(number: int, reduction: int, height: int, width: int) -> np.ndarray:
    """Return a texture, H×W×3 in [0, 1], larger than an image."""
    package = find_spec("imagecorruptions")
    assert package is not None and package.submodule_search_locations is not None
    file = Path(package.submodule_search_locations[0]) / "frost" / TEXTURES[number]
    with Image.open(file) as opened:
        picture = opened.convert("RGB")
    # Bilinear reduction by an odd number hits the middle pixel of each block.
    texture = np.asarray(picture)[reduction // 2 :: reduction, reduction // 2 :: reduction] / 255
    factor = max(height / texture.shape[0], width / texture.shape[1])
    if factor < 1:
        return texture
    sides = [round(ROOM * factor * side) + 1 for side in texture.shape[1::-1]]
    return np.asarray(picture.resize((sides[0], sides[1]), Image.Resampling.BICUBIC)) / 255


def fog(x: np.ndarray, random: RandomState, amount: float, decay: float) -> np.ndarray:
    """Add a plasma fractal, and scale what was brightest back to where it was."""
    height, width = x.shape[:2]
    side = 1 << (max(height, width) - 1).bit_length()
    mist = _plasma(side, decay, random)[:height, :width, None]
    return (x + amount * mist) * x.max() / (x.max() + amount)


def _plasma(side: int, decay: float, random: RandomState) -> np.ndarray:
    """Return a fractal by the diamond-square algorithm on a torus, values in [0, 1]."""
    field, step, wobble = np.zeros((side, side)), side, 100.0

    def middles(total: np.ndarray) -> np.ndarray:
        return total / 4 + wobble * random.uniform(-wobble, wobble, total.shape)

    while step >= 2:
        half, corners = step // 2, field[::step, ::step]
        total = corners + np.roll(corners, -1, 0)
        field[half::step, half::step] = middles(total + np.roll(total, -1, 1))
        centres = field[half::step, half::step]
        total = centres + np.roll(centres, 1, 0) + corners + np.roll(corners, -1, 1)
        field[::step, half::step] = middles(total)
        total = centres + np.roll(centres, 1, 1) + corners + np.roll(corners, -1, 0)
        field[half::step, ::step] = middles(total)
        step, wobble = half, wobble / decay
    field -= field.min()
    return field / max(float(field.max()), 1e-12)


def brightness(x: np.ndarray, random: RandomState, amount: float) -> np.ndarray:
    """Raise the value of HSV."""
    value = x.max(2, keepdims=True)
    raised = np.clip(value + amount, 0, 1)
    return np.where(value > 0, x * raised / np.where(value > 0, value, 1), raised)


def spatter(
    x: np.ndarray,
    random: RandomState,
    mean: float,
    deviation: float,
    sigma: float,
    least: float,
    strength: float,
    mud: bool,
) -> np.ndarray:
    """Spatter water, or mud, onto the image."""
    liquid = random.normal(size=(*x.shape[:2], 1), loc=mean, scale=deviation)
    liquid = gaussian_blur(liquid, random, sigma)
    liquid[liquid < least] = 0
    if not mud:
        return x + strength * _drops(liquid) * _tint(WATER, x)
    cover = gaussian_blur((liquid > least).astype(float), random, strength)
    cover[cover < 0.8] = 0
    return x * (1 - cover) + cover * _tint(MUD, x)


def _drops(liquid: np.ndarray) -> np.ndarray:
    """Return how much water is where, H×W×1: drops with a lit edge, at most 1."""
    import cv2

    layer = (liquid[..., 0] * 255).astype(np.uint8)
    near = cv2.distanceTransform(255 - cv2.Canny(layer, 50, 150), cv2.DIST_L2, 5)
    near = cv2.equalizeHist(cv2.blur(np.minimum(near, 20), (3, 3)).astype(np.uint8))
    light = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], dtype=np.float32)
    near = cv2.blur(cv2.filter2D(near, cv2.CV_8U, light), (3, 3))
    water = layer.astype(float) * near
    return water[..., None] / max(float(water.max()), 1.0)


def _tint(colour: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return a colour, or its grey, for the channels of an image."""
    return colour if x.shape[2] == 3 else _grey(colour)


def _grey(x: np.ndarray) -> np.ndarray:
    """Return an image, …×3 or …×1, in one channel."""
    return x @ GREY[:, None] if x.shape[-1] == 3 else x

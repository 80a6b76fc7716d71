"""Corruption of images, with the random numbers of each image alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

from cembench.data.corruptions import (
    CIFAR,
    IMAGENET,
    NAMES,
    SEVERITIES,
    parameters_of,
    without_extra,
)
from cembench.util.errors import CembenchError
from cembench.util.lazy import lazy_imports
from cembench.util.settings import nearest

with lazy_imports():
    import numpy as np
    import torch
    from numpy.random import RandomState
    from torch import Tensor

    from cembench.util.rng import derive

FAMILIES = ("noise", "blur", "weather", "digital")
ROUNDING = 1e-6  # of a level: what falls short of a level by less is at it, on any machine
TABLES: dict[str, dict[str, list[tuple[Any, ...]]]] = {"cifar-c": CIFAR, "imagenet-c": IMAGENET}


def corrupt(
    images: Tensor,
    name: str,
    severity: int = 3,
    *,
    seed: int = 0,
    rows: Iterable[int] | None = None,
) -> Tensor:
    """Corrupt images (Hendrycks & Dietterich, arXiv 1903.12261).

    They are rounded to 8 bits before and cut to 8 bits after, as the published ones. What becomes
    of an image depends on the image, the seed and its number alone.

    Args:
        images: N×C×H×W with one or three channels, floats in [0, 1] or bytes.
        name: of the corruption, such as `fog`.
        severity: from 1 to 5.
        seed: decides the randomness.
        rows: the numbers of the images; 0 to N − 1 unless given.

    Returns:
        Images of the same kind and shape, on the same device, with 256 levels.

    Raises:
        CembenchError: for an unknown name, a severity or images that there cannot be, or where the
            extra `[corruptions]` is needed and not installed.
    """
    _require(images, name, severity)
    bytes_ = images if images.dtype == torch.uint8 else (images * 255).round().to(torch.uint8)
    pixels = bytes_.cpu().numpy().transpose(0, 2, 3, 1) / 255
    change, shape = function_of(name), (images.shape[1], images.shape[2], images.shape[3])
    parameters = TABLES[parameters_of(shape)][name][severity - 1]
    result = np.empty(pixels.shape, dtype=np.uint8)
    for place, row in enumerate(range(len(images)) if rows is None else rows):
        random = RandomState(derive(seed, "corruption", name, severity, int(row)) % 2**32)
        values = change(pixels[place], random, *parameters)
        result[place] = np.clip(values, 0, 1) * 255 + ROUNDING
    found = torch.from_numpy(result.transpose(0, 3, 1, 2).copy()).to(images.device)
    return found if images.dtype == torch.uint8 else found.to(images.dtype) / 255


def function_of(name: str) -> Callable[..., np.ndarray]:
    """Return the function of a corruption, from an image, its random numbers and parameters."""
    modules = [import_module(f"cembench.data.corruptions.{family}") for family in FAMILIES]
    return next(getattr(module, name) for module in modules if hasattr(module, name))


def _require(images: Tensor, name: str, severity: int) -> None:
    if not isinstance(images, Tensor):
        raise CembenchError(f"images: give a tensor N×C×H×W, got a {type(images).__name__}")
    if name not in NAMES:
        raise CembenchError(f"corruption '{name}' is unknown; {nearest(name, NAMES)}")
    if severity not in SEVERITIES:
        raise CembenchError(f"severity {severity} of {name}: give 1 to 5")
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise CembenchError(
            f"{name}: images of shape {tuple(images.shape)}; give N×C×H×W with 1 or 3 channels"
        )
    if name in without_extra():
        raise CembenchError(f"{name} needs a package: pip install 'cembench[corruptions]'")

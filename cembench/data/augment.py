"""Augmentation of training images: random crop and mirror, per batch, on their device."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from cembench.util.rng import integers, uniform


def augment(images: Tensor, crop: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Pad each image with zeros, crop it at random to its size, and mirror half of them.

    Args:
        images: N×C×H×W, any type.
        crop: pixels of padding on each side; 0 leaves the position.
        flip: whether to mirror left to right at random.
        generator: the source of randomness, on the device of the images.
    """
    if crop:
        images = _random_crop(images, crop, generator)
    if flip:
        coin = uniform((len(images), 1, 1, 1), generator) < 0.5
        images = torch.where(coin, images.flip(-1), images)
    return images


def _random_crop(images: Tensor, crop: int, generator: torch.Generator) -> Tensor:
    count, _, height, width = images.shape
    shift = integers(2 * crop + 1, (count, 2, 1), generator)
    rows = shift[:, 0] + torch.arange(height, device=images.device)
    columns = shift[:, 1] + torch.arange(width, device=images.device)
    batch = torch.arange(count, device=images.device)[:, None, None]
    padded = pad(images, (crop,) * 4).permute(0, 2, 3, 1)
    return padded[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()

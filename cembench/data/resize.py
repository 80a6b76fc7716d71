"""Resizing of one data set's images to the shape of another's, and to 256 levels."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from cembench.data.split import Split
from cembench.data.store import Store
from cembench.util.errors import CembenchError

IN_MEMORY = 256 * 1024**2  # bytes of resized images that are kept; more are resized when read


def resized(split: Split, shape: Sequence[int]) -> Split:
    """Return a split with images of `shape` (channels, height, width), bilinear and antialiased.

    Colour becomes grey as the mean of the channels; grey becomes colour as three equal channels.

    Raises:
        CembenchError: for channels that differ and are not one and three.
    """
    channels, height, width = shape
    if split.shape == tuple(shape):
        return split
    if {channels, split.shape[0]} - {1, 3}:
        raise CembenchError(f"images of {split.shape[0]} channels do not become {channels}")
    store = Resized(split, (channels, height, width))
    found = Split(store, split.labels, split.classes)
    if len(split) * prod(shape) > IN_MEMORY:
        return found
    return Split.of(torch.cat(list(found.batches(1024))), split.labels, split.classes)


def eight_bit(split: Split) -> Store:
    """Return the images of a split with 256 levels, whatever its own."""
    return split.store if split.levels == 255 else Resized(split, split.shape)


class Resized(Store):
    """Images of a split in another shape, computed batch by batch, with 256 levels."""

    def __init__(self, split: Split, shape: tuple[int, int, int]) -> None:
        self.split, self.shape, self.device = split, shape, split.device

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.split)

    def batch(self, rows: Tensor) -> Tensor:
        """Return the images of some rows."""
        x = self.split.pixels(rows)
        if self.shape != self.split.shape:
            x = _resized(x, self.shape)
        return (x.clamp(0, 1) * 255).round().to(torch.uint8)

    def to(self, device: torch.device) -> Store:
        """Return the same images with their batches on a device."""
        return Resized(self.split.to(device), self.shape)


def _resized(x: Tensor, shape: tuple[int, int, int]) -> Tensor:
    channels, height, width = shape
    x = x.mean(1, keepdim=True) if channels == 1 else x.expand(-1, 3, -1, -1)
    small = max(x.shape[-2:]) > min(height, width)
    return interpolate(x, (height, width), mode="bilinear", antialias=small)

"""Resizing of one data set's images to the shape of another's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import interpolate

from cembench.data.split import Split
from cembench.util.errors import CembenchError


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
    parts = []
    for rows in torch.arange(len(split)).split(1024):
        x = split.pixels(rows)
        x = x.mean(1, keepdim=True) if channels == 1 else x.expand(-1, 3, -1, -1)
        small = max(x.shape[-2:]) > min(height, width)
        x = interpolate(x, (height, width), mode="bilinear", antialias=small)
        parts.append((x.clamp(0, 1) * 255).round().to(torch.uint8))
    return Split.of(torch.cat(parts), split.labels, split.classes)

"""Pixel means and deviations of a split."""

from __future__ import annotations

import torch
from torch import Tensor

from cembench.data.split import Split


def pixel_statistics(split: Split) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each channel, on [0, 1], from exact integer sums."""
    values = split.images.transpose(0, 1).flatten(1)
    counts = [torch.bincount(channel, minlength=split.levels + 1).double() for channel in values]
    shares = torch.stack(counts) / values.shape[1]
    grid = torch.arange(split.levels + 1).double() / split.levels
    mean = shares @ grid
    std = (shares @ grid**2 - mean**2).clamp_min(0).sqrt().clamp_min(1e-3)
    return mean.float(), std.float()

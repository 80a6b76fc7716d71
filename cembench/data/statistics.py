"""Pixel statistics of a split: mean and standard deviation of each channel."""

from __future__ import annotations

import torch
from torch import Tensor

from cembench.data.split import Split


def pixel_statistics(split: Split) -> tuple[Tensor, Tensor]:
    """Return means and standard deviations of pixels in [0, 1], one per channel, each C.

    They come from counts of each level, so they do not depend on the order of summation.
    """
    counts = torch.zeros(split.shape[0], split.levels + 1, dtype=torch.double)
    for images in split.batches():
        for total, values in zip(counts, images.transpose(0, 1).flatten(1), strict=True):
            total += torch.bincount(values, minlength=split.levels + 1).cpu()
    shares = counts / counts.sum(1, keepdim=True)
    grid = torch.arange(split.levels + 1).double() / split.levels
    mean = shares @ grid
    std = (shares @ grid**2 - mean**2).clamp_min(0).sqrt().clamp_min(1e-3)
    return mean.float(), std.float()

"""Low-frequency noise: images without objects that are as smooth as natural ones."""

from __future__ import annotations

import torch
from torch import Tensor

from cembench.util.rng import uniform

NARROWEST, WIDEST = 1.0, 2.5  # standard deviations of the filter, in pixels


def smooth_noise(x: Tensor, generator: torch.Generator) -> Tensor:
    """Return low-frequency noise of ACET (Hein et al., arXiv 1812.05720), N×C×H×W.

    Half are images with their pixels in a random order, half uniform noise. A Gaussian filter of
    a random width smooths each, and its values are stretched to [0, 1].

    Args:
        x: images, N×C×H×W, whose pixels are permuted.
        generator: the source of randomness, on the device of the images.
    """
    coin = uniform((len(x), 1, 1, 1), generator) < 0.5
    rough = torch.where(coin, _permuted(x, generator), uniform(x.shape, generator))
    width = NARROWEST + (WIDEST - NARROWEST) * uniform((len(x),), generator)
    rows, columns = (_filter(side, width) for side in x.shape[-2:])
    smooth = rows[:, None] @ rough @ columns[:, None].mT
    low, high = (edge.reshape(-1, 1, 1, 1) for edge in smooth.flatten(1).aminmax(dim=1))
    return (smooth - low) / (high - low).clamp_min(1 / 255)


def _permuted(x: Tensor, generator: torch.Generator) -> Tensor:
    flat = x.flatten(2)
    order = uniform((len(x), flat.shape[2]), generator).argsort(1)
    return flat.gather(2, order[:, None].expand_as(flat)).reshape(x.shape)


def _filter(side: int, width: Tensor) -> Tensor:
    """Return the filter along one side as N matrices, side × side, whose rows sum to 1."""
    place = torch.arange(side, device=width.device)
    apart = (place[:, None] - place).square() / (2 * width.square())[:, None, None]
    return (-apart).exp() / (-apart).exp().sum(2, keepdim=True)

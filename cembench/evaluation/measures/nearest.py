"""Nearest training images, by the Euclidean distance of pixels in [0, 1]."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from cembench.data.split import Split
from cembench.data.store import Store

PRODUCTS = 2e12  # multiplications that a search may take: 10,000 images among 65,000 at 32 px
FEWEST = 1000  # images that are searched for whatever it takes
QUERY_BYTES = 256 * 1024**2  # of images in float32 that are searched for in one pass
TOGETHER = 256  # of them that are compared with a batch of training images at once


def most_searched(training: Split) -> int:
    """Return for how many images the nearest of these training images are searched at most."""
    return max(FEWEST, int(PRODUCTS / (len(training) * prod(training.shape))))


def nearest(images: Store, training: Split) -> tuple[Tensor, Tensor]:
    """Return the distance of images, N, to the nearest training image, and its row; on the CPU.

    Training images are read batch by batch, once for each 256 MB of images.
    """
    together = max(1, QUERY_BYTES // (4 * prod(images.shape)))
    parts = torch.arange(len(images)).split(together)
    found = [_nearest(batch, training) for batch in images.batches(parts)]
    return torch.cat([one[0] for one in found]).cpu(), torch.cat([one[1] for one in found]).cpu()


def _nearest(images: Tensor, training: Split) -> tuple[Tensor, Tensor]:
    queries = images.to(training.device).float().div_(255).flatten(1)
    best = torch.full((len(queries),), torch.inf, device=queries.device)
    where = torch.zeros(len(queries), dtype=torch.long, device=queries.device)
    for rows, batch in zip(training.parts(), training.batches(), strict=True):
        known = batch.float().div_(training.levels).flatten(1)
        for part in torch.arange(len(queries), device=queries.device).split(TOGETHER):
            found = torch.cdist(queries[part], known).min(1)
            closer = found.values < best[part]
            best[part] = torch.where(closer, found.values, best[part])
            where[part] = torch.where(closer, found.indices + int(rows[0]), where[part])
    return best, where

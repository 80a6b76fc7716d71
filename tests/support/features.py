"""Features that no network made, for tests of metrics."""

import torch

from cembench.data.store.memory import MemoryStore
from cembench.evaluation.extractors.features import Features, ImageFeatures


def pool(points, unit=False):
    points = torch.as_tensor(points, dtype=torch.float32)
    empty = torch.zeros(len(points), dtype=torch.int64)
    images = torch.zeros(len(points), 1, 8, 8, dtype=torch.uint8)
    return ImageFeatures(MemoryStore(images), empty, Features(points, points), unit)


def normal(count, shift=0.0, seed=0, dimension=6, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return pool(torch.randn(count, dimension, generator=generator) * scale + shift)

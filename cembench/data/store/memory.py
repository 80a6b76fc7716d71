"""Store in memory: one tensor, on the device where it is used."""

from __future__ import annotations

import torch
from torch import Tensor

from cembench.data.store import Store


class MemoryStore(Store):
    """Images in one tensor, uint8, N×C×H×W."""

    def __init__(self, images: Tensor) -> None:
        self.images, self.device = images, images.device
        channels, height, width = images.shape[1:]
        self.shape = channels, height, width

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def batch(self, rows: Tensor) -> Tensor:
        """Return the images of some rows."""
        return self.images[rows]

    def to(self, device: torch.device) -> MemoryStore:
        """Return the store with its tensor on a device."""
        return MemoryStore(self.images.to(device))

    def chosen(self, rows: Tensor) -> MemoryStore:
        """Return a store of copies of some rows."""
        return MemoryStore(self.images[rows])

"""Store in memory: one tensor, on the device where it is used."""

from __future__ import annotations

import torch
from torch import Tensor

from cembench.data.store import Store

SHARE = 1 / 4  # of the free memory of a GPU, which images may take


class MemoryStore(Store):
    """Images in one tensor, uint8, N×C×H×W.

    Args:
        images: the tensor.
        device: where batches are returned; that of the tensor unless given.
    """

    def __init__(self, images: Tensor, device: torch.device | None = None) -> None:
        self.images, self.device = images, device or images.device
        channels, height, width = images.shape[1:]
        self.shape = channels, height, width

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def batch(self, rows: Tensor) -> Tensor:
        """Return the images of some rows."""
        if self.images.device == self.device:
            return self.images[rows]
        return self.images[rows.to(self.images.device)].to(self.device)

    def to(self, device: torch.device) -> MemoryStore:
        """Return the store with its batches on a device, and its tensor if it fits there."""
        if device.type == "cuda" and self.images.nbytes > SHARE * _free_memory(device):
            return MemoryStore(self.images, device)
        return MemoryStore(self.images.to(device))

    def chosen(self, rows: Tensor) -> MemoryStore:
        """Return a store of copies of some rows."""
        return MemoryStore(self.images[rows.to(self.images.device)], self.device)


def _free_memory(device: torch.device) -> int:
    """Return the bytes of a GPU that are not in use."""
    return torch.cuda.mem_get_info(device)[0]

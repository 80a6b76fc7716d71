"""Stores: where the images of a split lie as bytes, and how batches of them are read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor


class Store(ABC):
    """Images of one shape as bytes.

    Attributes:
        shape: channels, height and width.
        device: where batches are returned.
    """

    shape: tuple[int, int, int]
    device: torch.device = torch.device("cpu")

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of images."""

    @property
    def place(self) -> str:
        """Where the images are, for people."""
        return "in memory"

    @abstractmethod
    def batch(self, rows: Tensor) -> Tensor:
        """Return the images of some rows, uint8, M×C×H×W, on the device.

        Args:
            rows: their numbers, int64, M, on the CPU or the device, in any order.

        Raises:
            CembenchError: when an image cannot be read.
        """

    def batches(self, parts: Iterable[Tensor]) -> Iterator[Tensor]:
        """Return the images of one batch of rows after the other; it may read ahead."""
        return map(self.batch, parts)

    @abstractmethod
    def to(self, device: torch.device) -> Store:
        """Return the store with its batches on a device; what fits there may move there."""

    def chosen(self, rows: Tensor) -> Store:
        """Return a store of some rows alone, int64, M, which copies no images unless they fit."""
        return Chosen(self, rows)


class Chosen(Store):
    """Some rows of a store."""

    def __init__(self, whole: Store, rows: Tensor) -> None:
        self.whole, self.rows = whole, rows.cpu()
        self.shape, self.device = whole.shape, whole.device

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.rows)

    @property
    def place(self) -> str:
        """Where the images are, for people."""
        return self.whole.place

    def batch(self, rows: Tensor) -> Tensor:
        """Return the images of some rows."""
        return self.whole.batch(self.rows[rows.cpu()])

    def batches(self, parts: Iterable[Tensor]) -> Iterator[Tensor]:
        """Return the images of one batch of rows after the other."""
        return self.whole.batches(self.rows[rows.cpu()] for rows in parts)

    def to(self, device: torch.device) -> Store:
        """Return the same rows with their batches on a device."""
        return Chosen(self.whole.to(device), self.rows)

    def chosen(self, rows: Tensor) -> Store:
        """Return some of the rows."""
        return Chosen(self.whole, self.rows[rows.cpu()])

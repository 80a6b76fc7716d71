"""Joined stores: the images of several stores, one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from cembench.data.store import Store


class Joined(Store):
    """Images of several stores of one shape; a row counts through all of them."""

    def __init__(self, stores: Sequence[Store]) -> None:
        self.stores = tuple(stores)
        self.shape, self.device = stores[0].shape, stores[0].device
        self.ends = torch.tensor([len(store) for store in stores]).cumsum(0)

    def __len__(self) -> int:
        """Return the number of images."""
        return int(self.ends[-1])

    @property
    def place(self) -> str:
        """Where the images are, for people."""
        return ", ".join(dict.fromkeys(store.place for store in self.stores))

    def batch(self, rows: Tensor) -> Tensor:
        """Return the images of some rows."""
        return next(self.batches([rows]))

    def batches(self, parts: Iterable[Tensor]) -> Iterator[Tensor]:
        """Return the images of one batch of rows after the other; each store may read ahead."""
        parts = [rows.cpu() for rows in parts]
        places = [torch.bucketize(rows, self.ends, right=True) for rows in parts]
        readers = [self._reader(number, parts, places) for number in range(len(self.stores))]
        for place in places:
            images = torch.empty((len(place), *self.shape), dtype=torch.uint8, device=self.device)
            for number in place.unique().tolist():
                rows = (place == number).nonzero().squeeze(1).to(self.device)
                images.index_copy_(0, rows, next(readers[number]))
            yield images

    def _reader(self, number: int, parts: list[Tensor], places: list[Tensor]) -> Iterator[Tensor]:
        """Return the images of one store in each batch that has any."""
        first = int(self.ends[number]) - len(self.stores[number])
        own = [rows[place == number] - first for rows, place in zip(parts, places, strict=True)]
        return iter(self.stores[number].batches([rows for rows in own if len(rows)]))

    def to(self, device: torch.device) -> Joined:
        """Return the same images with their batches on a device."""
        return Joined([store.to(device) for store in self.stores])

"""Store on disk: prepared shards, of which every process reads the rows that it needs.

They are read rather than mapped: the pages of a map count as memory of the process, and with each
that it touches the kernel maps fifteen more. 256 random images of 32×32 in 2 GB took 0.4 ms to
read, and 0.15 ms from a map, all of which was in memory after two thousand batches.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cembench.data.files.prepared import Index, Prepared
from cembench.data.store import Store
from cembench.util.ahead import ahead
from cembench.util.errors import CembenchError

MOST_BUFFERS = 1024  # that the system fills at once (IOV_MAX)


class DiskStore(Store):
    """Images in the shards of a prepared split; it can be sent to another process."""

    def __init__(self, prepared: Prepared, index: Index) -> None:
        self.prepared, self.index = prepared, index
        channels, height, width = index.shape
        self.shape = channels, height, width
        self._shards = _Shards([prepared.shard(number) for number in index.shards])

    def __len__(self) -> int:
        """Return the number of images."""
        return self.index.images

    @property
    def place(self) -> str:
        """The folder."""
        return str(self.prepared.folder)

    def batch(self, rows: Tensor) -> Tensor:
        """Return the images of some rows."""
        return self._sent(self._filled(self._buffer(rows)))

    def batches(self, parts: Iterable[Tensor]) -> Iterator[Tensor]:
        """Return the images of one batch of rows after the other, and read the next meanwhile.

        The thread that reads ahead makes no calls to CUDA, which would spoil a graph that is being
        recorded.
        """
        buffers = (self._buffer(rows) for rows in parts)
        with ThreadPoolExecutor(1) as pool:
            yield from map(self._sent, ahead(pool, self._filled, buffers, 1))

    def _buffer(self, rows: Tensor) -> tuple[np.ndarray, Tensor]:
        """Return rows, and where their images go."""
        shape, pinned = (len(rows), *self.shape), self.device.type == "cuda"
        return rows.cpu().numpy(), torch.empty(shape, dtype=torch.uint8, pin_memory=pinned)

    def _filled(self, to_read: tuple[np.ndarray, Tensor]) -> Tensor:
        rows, images = to_read
        places = list(images.flatten(1).numpy())
        for shard, first, order in _runs(rows, self.index.shard_images):
            self._shards.read(shard, first * self.index.bytes_each, [places[i] for i in order])
        return images

    def _sent(self, images: Tensor) -> Tensor:
        return images.to(self.device, non_blocking=True)

    def to(self, device: torch.device) -> DiskStore:
        """Return the store with its batches on a device."""
        other = DiskStore(self.prepared, self.index)
        other.device, other._shards = device, self._shards
        return other


def _runs(rows: np.ndarray, size: int) -> Iterator[tuple[int, int, list[int]]]:
    """Divide rows into runs that lie one after the other in a shard of `size` images.

    Yields:
        The shard, the place of the first image in it, and which of `rows` the run consists of.
    """
    order = np.argsort(rows, kind="stable")
    rising = rows[order]
    begins = np.flatnonzero((np.diff(rising, prepend=-2) != 1) | (rising % size == 0)).tolist()
    for start, end in pairwise([*begins, len(rows)]):
        for at in range(start, end, MOST_BUFFERS):
            shard, first = divmod(int(rising[at]), size)
            yield shard, first, order[at : min(end, at + MOST_BUFFERS)].tolist()


class _Shards:
    """The files of the shards, each of which is opened once. Reading has no position to share."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        self._open: dict[int, int] = {}
        self._lock = Lock()

    def __reduce__(self) -> Any:
        return _Shards, (self.paths,)

    def __del__(self) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)

    def read(self, shard: int, offset: int, buffers: list[Any]) -> None:
        """Fill buffers with what follows an offset.

        Raises:
            CembenchError: naming a shard that is cut short or cannot be read.
        """
        wanted = sum(buffer.nbytes for buffer in buffers)
        try:
            if self._fill(shard, offset, buffers) == wanted:
                return
            reason = "cut short"
        except OSError as error:
            reason = str(error.strerror)
        path = self.paths[shard]
        raise CembenchError(f"{path}: {reason}; `cembench data prepare --verify` makes it again")

    def _fill(self, shard: int, offset: int, buffers: list[Any]) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._descriptor(shard), buffers, offset)
        with self.paths[shard].open("rb") as file:
            file.seek(offset)
            return sum(file.readinto(buffer) for buffer in buffers)

    def _descriptor(self, shard: int) -> int:
        with self._lock:
            if shard not in self._open:
                self._open[shard] = os.open(self.paths[shard], os.O_RDONLY)
            return self._open[shard]

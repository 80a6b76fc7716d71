"""Images collected from batches: in memory, or in a temporary file where they are too many."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from cembench.data.files.prepared import Index, Prepared
from cembench.data.store import Store
from cembench.data.store.disk import DiskStore
from cembench.data.store.memory import MemoryStore
from cembench.util.errors import CembenchError
from cembench.util.files import unwritable
from cembench.util.files.layout import user_cache
from cembench.util.files.temporary import temporary_beside


class OneShard(Prepared):
    """A single file of images, where a prepared split has several."""

    def __init__(self, path: Path) -> None:
        self.path, self.folder = path, path.parent

    def shard(self, number: int) -> Path:
        """Return the file."""
        return self.path


def collected(batches: Iterable[Tensor], limit: float) -> Store:
    """Return a store of all images.

    Args:
        batches: uint8, N×C×H×W, each read once.
        limit: bytes that are kept in memory, at most; more go into the user's cache, for as long as
            the store is used.

    Raises:
        CembenchError: when there are none, or the disk is full.
    """
    kept, size, batches = [], 0, iter(batches)
    for images in batches:
        kept.append(images)
        size += images.numel()
        if size > limit:
            return _on_disk(chain(kept, batches))
    if not kept:
        raise CembenchError("holds no images")
    return MemoryStore(torch.cat(kept))


def _on_disk(batches: Iterator[Tensor]) -> Store:
    place, count, shape = user_cache() / "in-memory" / "images.u8", 0, torch.Size()
    with ExitStack() as stack:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            descriptor, path = stack.enter_context(temporary_beside(place))
            with os.fdopen(descriptor, "wb") as file:
                for images in batches:
                    file.write(images.contiguous().numpy().data)
                    count, shape = count + len(images), images.shape[1:]
        except OSError as error:
            raise unwritable(place, error) from error
        shard = OneShard(path)
        weakref.finalize(shard, stack.pop_all().close)
    index = Index(title="", images=count, shape=[*shape], shard_images=count, sha256=[""])
    return DiskStore(shard, index)

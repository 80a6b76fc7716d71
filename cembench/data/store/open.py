"""Opening of a split of image files: in memory, on disk, or decoded on the fly."""

from __future__ import annotations

from typing import Literal

import torch

from cembench.data.files.reader import Reader
from cembench.data.split import Split
from cembench.data.store.disk import DiskStore
from cembench.data.store.encoded import EncodedStore
from cembench.data.store.encoded_fingerprint import encoded_fingerprint
from cembench.data.store.prepare import LEVELS, prepared_split

Place = Literal["auto", "memory", "disk"]


def open_split(
    reader: Reader, place: Place, limit: float, title: str, verify: bool = False
) -> Split:
    """Return the split of decoded images.

    Args:
        reader: the images.
        place: where they are kept once decoded; `auto` is in memory if they fit into the limit.
        limit: bytes of decoded images, at most, that `auto` keeps in memory.
        title: the data set and the split, for people.
        verify: as for `prepared_split`.

    Raises:
        CembenchError: when images or classes do not fit together, an image cannot be read, or
            the disk is full.
    """
    source = reader.source
    labels = torch.from_numpy(source.labels)
    if place == "memory" or (place == "auto" and len(reader) * reader.bytes_each <= limit):
        return Split.of(_in_memory(reader), labels, source.classes, LEVELS)
    prepared, index = prepared_split(reader, title, verify)
    store = DiskStore(prepared, index)
    return Split(store, labels, source.classes, LEVELS, known=index.fingerprint)


def encoded_split(reader: Reader, workers: int | None, title: str) -> Split:
    """Return the split of images that are decoded whenever they are asked for.

    Args:
        reader: the images.
        workers: processes that decode ahead; as many as there are cores, up to eight, for None.
        title: the data set and the split, for people.

    Raises:
        CembenchError: when images or classes do not fit together, or a file cannot be read.
    """
    store, labels = EncodedStore(reader, workers), torch.from_numpy(reader.source.labels)
    known = encoded_fingerprint(reader, title)
    return Split(store, labels, reader.source.classes, LEVELS, known)


def _in_memory(reader: Reader) -> torch.Tensor:
    images, row = torch.empty((len(reader), *reader.shape), dtype=torch.uint8), 0
    for batch in reader.batches(range(len(reader))):
        images[row : row + len(batch)] = torch.from_numpy(batch)
        row += len(batch)
    return images

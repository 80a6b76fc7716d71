"""Opening of a split of image files: in memory or on disk."""

from __future__ import annotations

from collections import Counter
from typing import Literal

import torch

from cembench.data.reader import Reader
from cembench.data.split import Split
from cembench.util.errors import CembenchError

Place = Literal["auto", "memory", "disk"]


def open_split(reader: Reader, place: Place, limit: float) -> Split:
    """Return the split of decoded images.

    Args:
        reader: the images.
        place: where they are kept once decoded; `auto` is in memory if they fit into the limit.
        limit: bytes of decoded images, at most, that `auto` keeps in memory.

    Raises:
        CembenchError: when images or classes do not fit together, or an image cannot be read.
    """
    source = reader.source
    if twice := [name for name, times in Counter(source.classes).items() if times > 1]:
        raise CembenchError(f"two classes are called '{twice[0]}'; rename one")
    return Split.of(_in_memory(reader), torch.as_tensor(source.labels).long(), source.classes)


def _in_memory(reader: Reader) -> torch.Tensor:
    images = torch.empty((len(reader), *reader.shape), dtype=torch.uint8)
    for row, image in enumerate(images.numpy()):
        image[...] = reader.read(row)
    return images

"""Objects that hold images in a Python program: arrays, data sets and loaders, read once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cembench.data.objects.collected import collected
from cembench.data.objects.elements import class_names, elements
from cembench.data.objects.labels import labels_of
from cembench.data.objects.pixels import Pixels
from cembench.data.split import Split

Classes = tuple[str, ...]


@dataclass(frozen=True)
class Reading:
    """Images that were read from an object.

    Attributes:
        split: the images, with the names of their classes, or numbers where they have none.
        named: whether the names were given, or said by the object.
        rounding: the largest change of a pixel of float images, which are kept as bytes.
    """

    split: Split
    named: bool
    rounding: float = 0.0

    def renamed(self, classes: Sequence[str]) -> Reading:
        """Return the same images with other names of their classes."""
        split = self.split
        if tuple(classes) == split.classes:
            return self
        renamed = Split(split.store, split.labels, tuple(classes), split.levels)
        return Reading(renamed, self.named, self.rounding)


def read(
    data: Any, classes: Sequence[str] | None = None, levels: int = 255, limit: float = math.inf
) -> Reading:
    """Read the images and labels of an object, in one pass, in its order.

    Args:
        data: a pair of images and labels, a data set of (image, label) or of rows with an image and
            a label column, a loader of batches of these, or a split.
        classes: names in label order; those of the object unless given.
        levels: the integer that stands for 1.0; the pixels of float images are rounded to multiples
            of its inverse.
        limit: bytes of images that are kept in memory, at most.

    Raises:
        CembenchError: for anything else, and for images and labels that are none.
    """
    if isinstance(data, Split):
        return Reading(data, named=True).renamed(classes or data.classes)
    pixels, labels = Pixels(levels), list[Tensor]()

    def batches() -> Iterator[Tensor]:
        for part, targets in elements(data):
            images = pixels.bytes_of(part)
            labels.append(labels_of(targets, len(images)))
            yield images

    store = collected(batches(), limit)
    found, names = torch.cat(labels), tuple(classes or class_names(data))
    split = Split(store, found, names or numbered(int(found.max()) + 1), levels)
    return Reading(split, bool(names), pixels.rounding)


def numbered(count: int) -> Classes:
    """Return the names of classes that have none: their numbers."""
    return tuple(map(str, range(max(2, count))))

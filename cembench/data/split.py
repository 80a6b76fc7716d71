"""Split of a data set: images as bytes in a store, labels, class names; and choices of rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from cembench.data.store import Store
from cembench.data.store.joined import Joined
from cembench.data.store.memory import MemoryStore
from cembench.util.errors import CembenchError

BATCH_BYTES = 16 * 1024**2  # read at a time where all images are gone through


@dataclass(frozen=True)
class Split:
    """The images and labels of one split.

    Attributes:
        store: the images, uint8, values 0..levels.
        labels: int64, N, values 0..len(classes)-1, on the device of the store.
        classes: class names in label order.
        levels: the integer that stands for 1.0.
        known: the fingerprint, where it is known without reading the images.
    """

    store: Store
    labels: Tensor
    classes: tuple[str, ...]
    levels: int = 255
    known: str | None = field(default=None, repr=False)

    @classmethod
    def of(
        cls, images: Tensor, labels: Tensor, classes: tuple[str, ...], levels: int = 255
    ) -> Split:
        """Return a split of images in memory, uint8, N×C×H×W."""
        return cls(MemoryStore(images), labels, classes, levels)

    def __post_init__(self) -> None:
        if len(self.store) == 0 or len(self.store) != len(self.labels):
            raise CembenchError(f"{len(self.store)} images and {len(self.labels)} labels")
        if len(self.classes) < 2:
            raise CembenchError(f"{len(self.classes)} class; a classifier needs two or more")
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high >= len(self.classes):
            wrong = low if low < 0 else high
            raise CembenchError(f"label {wrong} is outside the {len(self.classes)} classes")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return self.store.shape

    @property
    def device(self) -> torch.device:
        """Where batches and labels are."""
        return self.store.device

    def batch(self, rows: Tensor | slice = slice(None)) -> Tensor:
        """Return images as bytes, M×C×H×W, on the device: those of some rows, or all."""
        return self.store.batch(torch.arange(len(self))[rows] if isinstance(rows, slice) else rows)

    def pixels(self, rows: Tensor | slice = slice(None)) -> Tensor:
        """Return images as float32 in [0, 1], M×C×H×W: those of some rows, or all."""
        return self.batch(rows).float().div_(self.levels)

    def parts(self, size: int | None = None) -> Iterator[Tensor]:
        """Return the row numbers of one batch after the other, in order.

        Args:
            size: images in each; as many as a few megabytes hold unless given.
        """
        bytes_each = int(np.prod(self.shape))
        return iter(torch.arange(len(self)).split(size or max(1, BATCH_BYTES // bytes_each)))

    def batches(self, size: int | None = None) -> Iterator[Tensor]:
        """Return all images as bytes, one batch after the other; `size` as for `parts`."""
        return self.store.batches(self.parts(size))

    def take(self, rows: Tensor) -> Split:
        """Return a split of some rows alone."""
        labels = self.labels[rows.to(self.labels.device)]
        return replace(self, store=self.store.chosen(rows), labels=labels, known=None)

    def unlabelled(self) -> Split:
        """Return the split without its labels: all are 0, the first class."""
        return replace(self, labels=torch.zeros_like(self.labels), known=None)

    def to(self, device: torch.device) -> Split:
        """Return the split with its batches and labels on a device."""
        return replace(self, store=self.store.to(device), labels=self.labels.to(device))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over shape, levels, class names, labels and every pixel."""
        if self.known is not None:
            return self.known
        sha = begin_fingerprint(self.shape, self.levels, self.classes, self.labels.cpu().numpy())
        for images in self.batches():
            sha.update(images.cpu().contiguous().numpy().data)
        return sha.hexdigest()


def begin_fingerprint(
    shape: tuple[int, ...], levels: int, classes: tuple[str, ...], labels: np.ndarray
) -> hashlib._Hash:
    """Return the hash of a split before its images, which are added one after the other.

    Args:
        shape: of an image.
        levels: the integer that stands for 1.0.
        classes: class names in label order.
        labels: int64, N.
    """
    sha = hashlib.sha256(repr(((len(labels), *shape), levels, classes)).encode())
    sha.update(labels.tobytes())
    return sha


def joined(splits: Sequence[Split]) -> Split:
    """Return one split of several that are alike but for their images, one after the other."""
    first = splits[0]
    if len(splits) == 1:
        return first
    labels = torch.cat([split.labels for split in splits])
    store = Joined([split.store for split in splits])
    return replace(first, store=store, labels=labels, known=None)


def fixed_permutation(count: int) -> Tensor:
    """Return a permutation of 0…count − 1 that is the same on all machines and for ever.

    NumPy guarantees the stream of `RandomState`; that of other generators may change.
    """
    return torch.from_numpy(np.random.RandomState(0).permutation(count))


def hold_out(split: Split, fraction: float) -> tuple[Split, Split]:
    """Split training images into (training, validation), the same way every time.

    Args:
        split: all training images.
        fraction: the share of the validation images.

    Raises:
        CembenchError: when one of the two would be empty.
    """
    held = round(len(split) * fraction)
    if not 0 < held < len(split):
        raise CembenchError(f"validation.fraction={fraction:g} of {len(split)} images leaves none")
    rows = fixed_permutation(len(split))
    return split.take(rows[held:]), split.take(rows[:held])


def subset(split: Split, limit: int | None) -> tuple[Split, Tensor]:
    """Return at most `limit` images and their row numbers, rising; the same ones every time."""
    rows = torch.arange(len(split))
    if limit is not None and limit < len(split):
        rows = fixed_permutation(len(split))[:limit].sort().values
    return split.take(rows), rows

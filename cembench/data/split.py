"""Split of a data set in memory: images as bytes, labels, class names; and choices of rows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from cembench.util.errors import CembenchError


@dataclass(frozen=True)
class Split:
    """The images and labels of one split.

    Attributes:
        images: uint8, N×C×H×W, values 0..levels.
        labels: int64, N, values 0..len(classes)-1.
        classes: class names in label order.
        levels: the integer that stands for 1.0.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    levels: int = 255

    def __post_init__(self) -> None:
        if len(self.images) == 0 or len(self.images) != len(self.labels):
            raise CembenchError(f"{len(self.images)} images and {len(self.labels)} labels")
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
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def pixels(self, rows: Tensor | slice = slice(None)) -> Tensor:
        """Return images as float32 in [0, 1], M×C×H×W: those of some rows, or all."""
        return self.images[rows].float() / self.levels

    def take(self, rows: Tensor) -> Split:
        """Return a split of some rows alone."""
        return replace(self, images=self.images[rows], labels=self.labels[rows])

    def unlabelled(self) -> Split:
        """Return the split without its labels: all are 0, the first class."""
        return replace(self, labels=torch.zeros_like(self.labels))

    def to(self, device: torch.device) -> Split:
        """Return the split with its tensors on a device."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over shape, levels, class names, labels and every pixel."""
        sha = hashlib.sha256(repr((tuple(self.images.shape), self.levels, self.classes)).encode())
        sha.update(self.labels.cpu().numpy().tobytes())
        sha.update(self.images.cpu().contiguous().numpy().data)
        return sha.hexdigest()


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

"""Digits of other kinds: few of them, or in a store that returns 128 at a time and no more."""

from __future__ import annotations

from typing import ClassVar, Literal

import pytest
import torch
from torch import Tensor

from cembench.data import datasets
from cembench.data import resize as resizing
from cembench.data import split as splits
from cembench.data.digits import Digits
from cembench.data.split import Split
from cembench.data.store import Store
from cembench.evaluation.measures import nearest
from cembench.methods import contrastive, knn
from cembench.samplers import initial

MOST = 128


class Bounded(Store):
    """A store as on disk: views copy nothing, and a batch has a bound."""

    def __init__(self, images: Tensor) -> None:
        self.images = images
        channels, height, width = images.shape[1:]
        self.shape = channels, height, width

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, rows: Tensor) -> Tensor:
        assert len(rows) <= MOST, f"{len(rows)} images at once"
        return self.images[rows]

    def to(self, device: torch.device) -> Store:
        return self


@datasets.register
class BoundedDigits(Digits):
    """Digits in such a store; its values are those of `digits`."""

    name: ClassVar[str] = "bounded-digits"

    def load(self, split: Literal["train", "test"]) -> Split:
        whole = super().load(split)
        return Split(Bounded(whole.batch()), whole.labels, whole.classes, whole.levels)


@datasets.register
class FewDigits(Digits):
    """The first 300 training images of `digits`, and all test images: two steps an epoch."""

    name: ClassVar[str] = "few-digits"

    def load(self, split: Literal["train", "test"]) -> Split:
        whole = super().load(split)
        return whole if split == "test" else whole.take(torch.arange(300))


def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have everything that depends on bytes take the small images of digits for large ones."""
    images = 64 * MOST
    monkeypatch.setattr(splits, "BATCH_BYTES", images)
    monkeypatch.setattr(resizing, "IN_MEMORY", 0)
    monkeypatch.setattr(initial, "WHOLE", images)
    monkeypatch.setattr(initial, "PART", images // 2)
    monkeypatch.setattr(initial, "IN_FLOATS", 0)
    monkeypatch.setattr(contrastive, "MAX_BYTES", 0)
    monkeypatch.setattr(knn, "BATCH", 64)
    monkeypatch.setattr(nearest, "QUERY_BYTES", 4 * images)

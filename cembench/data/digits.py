"""Digits: scikit-learn's scans of handwritten digits (UCI optdigits, 8×8), part of its package."""

from __future__ import annotations

from functools import cache
from typing import ClassVar, Literal

from cembench.data import DataSettings
from cembench.energy.threat import Threat
from cembench.util.lazy import lazy_imports

with lazy_imports():
    import torch

    from cembench.data.split import Split, fixed_permutation

TEST_IMAGES = 597


class Digits(DataSettings):
    """1,797 scans, 8×8, with grey levels 0 to 16; the last 597 of a fixed permutation are the test
    split.
    """

    name: ClassVar[str] = "digits"

    @property
    def threat(self) -> Threat:
        """An eighth of the grey range: two of the sixteen levels."""
        return Threat(norm="linf", eps=0.125)

    def load(self, split: Literal["train", "test"]) -> Split:
        """Read one split."""
        images, labels = _scans()
        rows = fixed_permutation(len(labels))
        rows = rows[-TEST_IMAGES:] if split == "test" else rows[:-TEST_IMAGES]
        return Split.of(images[rows], labels[rows], tuple("0123456789"), levels=16)


@cache  # the package has them as text, which takes longer to read than the rest
def _scans() -> tuple[torch.Tensor, torch.Tensor]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(digits.images).to(torch.uint8).unsqueeze(1)
    return images, torch.from_numpy(digits.target).long()

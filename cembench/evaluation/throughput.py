"""Throughput: what a forward pass of a network costs, and how fast it was trained.

FLOPs belong to the architecture. Rates belong to the machine as well, with what else it did then:
no rate is compared when a record is verified, or by the gate.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cembench.models.metadata import CheckpointMetadata


@dataclass
class Speed:
    """Images and wall time by sampler.

    Attributes:
        done: by title, the number of images and the seconds that they took.
    """

    done: dict[str, tuple[int, float]] = field(default_factory=dict)

    def add(self, title: str, images: int, seconds: float) -> None:
        """Count images that took some seconds."""
        before, spent = self.done.get(title, (0, 0.0))
        self.done[title] = before + images, spent + seconds

    @property
    def rates(self) -> dict[str, float]:
        """Images per second, by title, with four digits."""
        return {title: rounded(images / s) for title, (images, s) in self.done.items() if s}


def rounded(rate: float) -> float:
    """Return a rate with four digits."""
    return float(f"{rate:.4g}")


def forward_flops(copy: nn.Module | None, image: Tensor) -> int | None:
    """Return the floating-point operations of a forward pass on one image, 1×C×H×W.

    A multiplication and its addition are two. Convolutions, matrix products and attention count,
    as PyTorch's own counter does; normalisation, activations and what is not computed by PyTorch
    do not.

    Args:
        copy: of the network, which itself is not asked anything; None where it cannot be copied.
        image: the image.

    Returns:
        None where there is no copy, or it fails on one image, or nothing was counted.
    """
    if copy is None:
        return None
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            copy(image)
    except Exception:  # of batch statistics of a single image, or operators without a formula
        return None
    return counter.get_total_flops() or None


def train_rate(history: Path, metadata: CheckpointMetadata, images: int) -> float | None:
    """Return the training images per second, validation included, over the epochs of a history.

    Args:
        history: its file.
        metadata: of the checkpoint, with the settings of training.
        images: number of training images.

    Returns:
        None where any of that is unknown.
    """
    try:
        seconds = pd.read_csv(history)["seconds"]
        read = len(seconds) * metadata.epoch_images(images)
        return rounded(read / seconds.sum()) if read and seconds.sum() else None
    except (OSError, KeyError, ValueError, TypeError):
        return None

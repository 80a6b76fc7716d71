"""Edited images: real images, what a network made of them, and what it says of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cembench.energy.norms import per_row
from cembench.samplers.draw import Samples
from cembench.util.display.image_grid import strips
from cembench.util.display.png import Png


@dataclass(frozen=True, repr=False)
class Edited(Samples):
    """Images that a network changed, each toward its class in `labels`.

    `images` are the results, `starts` what the ascent began with.

    Attributes:
        originals: the real images, N×C×H×W.
        classes: their classes, N.
    """

    originals: Tensor
    classes: Tensor

    @property
    def distance(self) -> Tensor:
        """Euclidean distance of each result from its original, in pixels on [0, 1], N."""
        return (self.images - self.originals).flatten(1).norm(dim=1)

    @property
    def confidence(self) -> Tensor:
        """Probability that the network gives the intended class of each result, N."""
        return confidence(self.logits, self.labels)

    def summary(self) -> dict[str, float]:
        """Return the network's own view, and means of distances to the originals and confidences.

        Keys that end in `_start` are about what the ascent began with.
        """
        start = (self.starts - self.originals).flatten(1).norm(dim=1)
        return super().summary() | {
            "distance_start": float(start.mean()),
            "distance": float(self.distance.mean()),
            "confidence_start": float(confidence(self.start_logits, self.labels).mean()),
            "confidence": float(self.confidence.mean()),
        }

    def grid(self, classes: Sequence[str] | None = None) -> Png:
        """Return a picture of originals, results and their difference, amplified.

        Args:
            classes: their names; numbers unless given.
        """
        rows = {"original": self.originals, "result": self.images, "difference": self.difference}
        return Png(strips(rows, self.captions(classes)))

    def captions(self, classes: Sequence[str] | None = None) -> dict[str, list[str]]:
        """Return what a picture says below originals and results: classes and confidence."""
        return {"original": self.named(self.classes, classes), "result": self.reading(classes)}

    def reading(self, classes: Sequence[str] | None = None) -> list[str]:
        """Return the intended class of each result and the network's confidence in it."""
        values = zip(self.named(self.labels, classes), self.confidence.tolist(), strict=True)
        return [f"{name}\n{value:.2f}" for name, value in values]

    @staticmethod
    def named(labels: Tensor, classes: Sequence[str] | None) -> list[str]:
        """Return labels as the names of their classes, or as numbers without them."""
        return [str(label) if classes is None else classes[label] for label in labels.tolist()]

    @property
    def difference(self) -> Tensor:
        """Result minus original around grey, amplified."""
        return amplified(self.images - self.originals)


def amplified(delta: Tensor) -> Tensor:
    """Return changes N×C×H×W as images around grey, each scaled to use all of [0, 1]."""
    largest = delta.flatten(1).abs().amax(1).clamp_min(1e-6)
    return 0.5 + 0.5 * delta / per_row(largest, delta)


def confidence(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the probabilities of classes (N) under logits (N×K), N values."""
    return logits.float().softmax(1).gather(1, labels[:, None]).squeeze(1)


def reads(logits: Tensor, labels: Tensor, level: float) -> Tensor:
    """Return which rows have their class as the most likely one, with at least this probability."""
    return (logits.argmax(1) == labels) & (confidence(logits, labels) >= level)


def likeliest_other(logits: Tensor) -> Tensor:
    """Return the second most likely class of each row of N×K logits, N."""
    first = logits.argmax(1, keepdim=True)
    return logits.scatter(1, first, -torch.inf).argmax(1)

"""Gaussians fitted on training images, and the replay buffer: where generative samplers start."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Self

import torch
from torch import Tensor

from cembench.data.split import Split, fixed_permutation, subset
from cembench.util.errors import CembenchError
from cembench.util.rng import integers, normal, rank_generator, uniform

MAX_FITTED = 10_000  # images that Gaussians without labels are fitted on
WHOLE = 40 * 10**6  # bytes of a class up to which all its images count: 13,020 at 32×32, 265 at 224
PART = 16 * 10**6  # bytes of the images that stand for a larger class: 5,208 at 32×32, 106 at 224
IN_FLOATS = 256 * 10**6  # bytes of a replay buffer in float32; a larger one is kept as bytes
TOGETHER = 256  # images that are drawn at once for such a buffer


class GaussianInit:
    """Gaussian per class, with the mean and the full covariance of its training images.

    With centred images X (n×d) and z ~ N(0, I_n), mean + Xᵀz/√(n−1) has exactly the sample
    covariance, so no d×d matrix is ever made, whatever the image size. All images of the class are
    read for each draw; for a class of more than `WHOLE` bytes the same random ones of them, `PART`
    bytes.
    """

    def __init__(self, split: Split) -> None:
        self.split = split
        self._rows: dict[int, Tensor] = {}

    def random_labels(self, count: int, generator: torch.Generator) -> Tensor:
        """Return random classes, N, with the frequencies of the images."""
        return self.split.labels[integers(len(self.split), (count,), generator)]

    def draw(self, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return one image per label, N×C×H×W, clipped to [0, 1].

        Raises:
            CembenchError: for a class with fewer than two training images.
        """
        images = torch.empty(len(y), *self.split.shape, device=y.device)
        for label in y.unique().tolist():
            rows = (y == label).nonzero().squeeze(1)
            images[rows] = self._of_class(label, len(rows), generator)
        return images.clamp(0, 1)

    def _of_class(self, label: int, count: int, generator: torch.Generator) -> Tensor:
        images = self.split.pixels(self._rows_of(label))
        mean = images.mean(0)
        weights = normal((count, len(images)), rank_generator(generator))
        deviation = weights @ images.sub_(mean).flatten(1) / (len(images) - 1) ** 0.5
        return mean + deviation.reshape(count, *mean.shape)

    def _rows_of(self, label: int) -> Tensor:
        if label not in self._rows:
            rows = (self.split.labels == label).nonzero().squeeze(1)
            if len(rows) < 2:
                name = self.split.classes[label]
                raise CembenchError(
                    f"class '{name}' has {len(rows)} training images; a Gaussian needs two"
                )
            bytes_each = prod(self.split.shape)
            if len(rows) * bytes_each > WHOLE:
                some = fixed_permutation(len(rows))[: max(2, PART // bytes_each)]
                rows = rows[some.sort().values.to(rows.device)]
            self._rows[label] = rows
        return self._rows[label]


def fit_gaussians(kind: str, split: Split, clusters: int) -> GaussianInit:
    """Return Gaussians, one per class (`gaussian`), one in all, or one per cluster."""
    if kind == "gaussian":
        return GaussianInit(split)
    some = subset(split, min(MAX_FITTED, max(2, WHOLE // prod(split.shape))))[0]
    return GaussianInit(some.unlabelled() if kind == "pooled" else clustered(some, clusters))


def clustered(split: Split, clusters: int) -> Split:
    """Return the same images with the k-means clusters of their pixels as classes.

    Raises:
        CembenchError: for more clusters than images.
    """
    from sklearn.cluster import KMeans

    if clusters > len(split):
        raise CembenchError(f"clusters: {clusters} of {len(split)} images")
    pixels = split.pixels().flatten(1).cpu().numpy()
    found = KMeans(clusters, n_init=4, random_state=0).fit_predict(pixels)
    labels = torch.from_numpy(found).long().to(split.labels.device)
    names = tuple(f"cluster {number}" for number in range(max(2, clusters)))
    return replace(split, labels=labels, classes=names)


class ReplayBuffer:
    """Replay buffer (JEM, arXiv 1912.03263): samples that later chains start from.

    Images are sorted by class, the same number of each. A share of the images that are drawn is
    reinitialised: from uniform noise, or from Gaussians.

    A buffer that is large in float32 is kept as bytes on the CPU, where samples are rounded to 256
    levels and cut to [0, 1].

    Attributes:
        images: N×C×H×W; float32, or uint8.
        classes: number of classes.
        per_class: images per class.
        device: where images are drawn.
    """

    def __init__(
        self,
        size: int,
        shape: tuple[int, ...],
        classes: int,
        generator: torch.Generator,
        gaussians: GaussianInit | None = None,
    ) -> None:
        self.per_class, self.classes = max(1, size // classes), classes
        self.device = generator.device
        y = torch.arange(classes, device=generator.device).repeat_interleave(self.per_class)
        if 4 * len(y) * prod(shape) <= IN_FLOATS:
            self.images = _fresh((len(y), *shape), y, generator, gaussians)
            return
        self.images = _placed(torch.empty((len(y), *shape), dtype=torch.uint8), self.device)
        for rows in torch.arange(len(y)).split(TOGETHER):
            part = y[rows.to(y.device)]
            self.update(rows, _fresh((len(rows), *shape), part, generator, gaussians))

    @classmethod
    def of(cls, images: Tensor, classes: int, device: torch.device | None = None) -> Self:
        """Return a buffer of these images, which are sorted by class, the same number of each.

        Args:
            images: N×C×H×W; float32, or uint8. They are not copied unless they move.
            classes: number of classes.
            device: where it is used; where the images are unless given.
        """
        buffer = cls.__new__(cls)
        buffer.device, buffer.classes = device or images.device, classes
        buffer.images = _placed(images, buffer.device)
        buffer.per_class = len(images) // classes
        return buffer

    def draw(
        self,
        y: Tensor,
        reinit: float,
        generator: torch.Generator,
        gaussians: GaussianInit | None = None,
        noise: float = 0.0,
    ) -> tuple[Tensor, Tensor]:
        """Draw an image of each label, and reinitialise some.

        Args:
            y: labels, N.
            reinit: share of the images that are reinitialised.
            generator: source of randomness.
            gaussians: what those are drawn from; uniform noise unless given.
            noise: share of them that are uniform noise all the same.

        Returns:
            Images, N×C×H×W, and their rows in the buffer, N.
        """
        rows = y * self.per_class + integers(self.per_class, y.shape, generator)
        images = self.images[rows.to(self.images.device)].to(self.device)
        if images.dtype == torch.uint8:
            images = images.float().div_(255)
        chosen = uniform((len(y),), generator) < reinit
        fresh = _fresh(tuple(images.shape), y, generator, gaussians)
        if noise:
            coin = uniform((len(y), 1, 1, 1), generator) < noise
            fresh = torch.where(coin, uniform(fresh.shape, generator), fresh)
        return torch.where(chosen.reshape(-1, 1, 1, 1), fresh, images), rows

    def update(self, rows: Tensor, samples: Tensor) -> None:
        """Replace these rows by samples, N×C×H×W."""
        values = samples.detach().float()
        if self.images.dtype == torch.uint8:
            values = (values.clamp(0, 1) * 255).round().to(torch.uint8)
        self.images[rows.to(self.images.device)] = values.to(self.images.device)


def _placed(images: Tensor, device: torch.device) -> Tensor:
    """Return floats on a device, and bytes on the CPU, whence a GPU can read them directly."""
    if images.dtype != torch.uint8:
        return images.to(device)
    images = images.cpu()
    return images.pin_memory() if device.type == "cuda" else images


def _fresh(
    shape: tuple[int, ...], y: Tensor, generator: torch.Generator, gaussians: GaussianInit | None
) -> Tensor:
    if gaussians is not None:
        return gaussians.draw(y, generator)
    return uniform(shape, generator)

"""Where generative samplers start: class-conditional Gaussians, and the replay buffer."""

from __future__ import annotations

from dataclasses import replace
from typing import Self

import torch
from torch import Tensor

from cembench.data.split import Split, subset
from cembench.util.errors import CembenchError
from cembench.util.rng import integers, normal, rank_generator, uniform

FITTED = ("gaussian", "pooled", "cluster")
MOST = 10_000  # images that a Gaussian without labels is fitted on


class GaussianInit:
    """A Gaussian a class with the mean and the full covariance of its training images.

    With centred images X (n×d) and z ~ N(0, I_n), mean + Xᵀz/√(n−1) has exactly the sample
    covariance, so no d×d matrix is ever made, whatever the image size.
    """

    def __init__(self, split: Split) -> None:
        self.split = split

    def parts(self, count: int, generator: torch.Generator) -> Tensor:
        """Return random classes, N, as often as the images have them."""
        return self.split.labels[integers(len(self.split), (count,), generator)]

    def draw(self, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return one seed for each label, N×C×H×W, cut to [0, 1].

        Raises:
            CembenchError: for a class with fewer than two training images.
        """
        seeds = torch.empty(len(y), *self.split.shape, device=y.device)
        for label in y.unique().tolist():
            rows = (y == label).nonzero().squeeze(1)
            seeds[rows] = self._of_class(label, len(rows), generator)
        return seeds.clamp(0, 1)

    def _of_class(self, label: int, count: int, generator: torch.Generator) -> Tensor:
        images = self.split.pixels((self.split.labels == label).nonzero().squeeze(1))
        if len(images) < 2:
            name = self.split.classes[label]
            raise CembenchError(f"class '{name}' has {len(images)} training images; seeds need two")
        mean = images.mean(0)
        weights = normal((count, len(images)), rank_generator(generator))
        spread = weights @ (images - mean).flatten(1) / (len(images) - 1) ** 0.5
        return mean + spread.reshape(count, *mean.shape)


def fit_gaussians(start: str, split: Split, clusters: int) -> GaussianInit:
    """Return the Gaussians of a start of `FITTED`: one a class, one in all, or one a cluster."""
    if start == "gaussian":
        return GaussianInit(split)
    some = subset(split, MOST)[0]
    return GaussianInit(some.unlabelled() if start == "pooled" else clustered(some, clusters))


def clustered(split: Split, clusters: int) -> Split:
    """Return a split whose classes are the k-means clusters of its pixels.

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
    """Samples that later chains go on from, a share of the places for each class (JEM).

    A part of the starts is drawn anew each time: uniformly in [0, 1], or from Gaussian seeds.
    """

    def __init__(
        self,
        size: int,
        shape: tuple[int, ...],
        classes: int,
        generator: torch.Generator,
        seeds: GaussianInit | None = None,
    ) -> None:
        self.places, self.classes = max(1, size // classes), classes
        y = torch.arange(classes, device=generator.device).repeat_interleave(self.places)
        self.images = _anew((len(y), *shape), y, generator, seeds)

    @classmethod
    def of(cls, images: Tensor, classes: int) -> Self:
        """Return a buffer that holds these images, sorted by class, the same number of each."""
        buffer = cls.__new__(cls)
        buffer.images, buffer.classes = images, classes
        buffer.places = len(images) // classes
        return buffer

    def draw(
        self,
        y: Tensor,
        renewed: float,
        generator: torch.Generator,
        seeds: GaussianInit | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return starts for labels y (N), N×C×H×W, and their places."""
        places = y * self.places + integers(self.places, y.shape, generator)
        starts = self.images[places]
        fresh = uniform((len(y),), generator) < renewed
        anew = _anew(tuple(starts.shape), y, generator, seeds)
        return torch.where(fresh.reshape(-1, 1, 1, 1), anew, starts), places

    def put_back(self, places: Tensor, samples: Tensor) -> None:
        """Keep samples in the places that their starts came from."""
        self.images[places] = samples.detach().float()


def _anew(
    shape: tuple[int, ...], y: Tensor, generator: torch.Generator, seeds: GaussianInit | None
) -> Tensor:
    if seeds is not None:
        return seeds.draw(y, generator)
    return uniform(shape, generator)

"""Fréchet and kernel distance beside training images, at other counts, and without their bias."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cembench.evaluation.metrics import Metric
from cembench.util.errors import CembenchError
from cembench.util.lazy import lazy_imports

with lazy_imports():
    import numpy as np
    import torch
    from torch import Tensor

    from cembench.data.split import fixed_permutation
    from cembench.evaluation.extractors.features import ImageFeatures
    from cembench.evaluation.metrics.functional import frechet_distance, kid

POINTS = 15  # of the line of FD∞, as in the paper


class Distance(Metric):
    """A distance between features, of which less is better."""

    better: ClassVar[Literal["higher", "lower"]] = "lower"


class FdTrain(Distance):
    """The Fréchet distance to training images, as many as there are samples.

    So its bias is that of FD, and both can be compared: samples that are nearer to training images
    than to others, by more than the same gap of real images, reproduce their training set.
    """

    name: ClassVar[str] = "fd-train"
    against: ClassVar[Literal["reference", "train"]] = "train"

    def measure(self, samples: ImageFeatures, real: ImageFeatures) -> float:
        """Compare the samples with training images that are always the same."""
        fake, known = samples.features.pool, real.features.pool
        rows = fixed_permutation(len(known))[: len(fake)]
        return frechet_distance(fake, known[rows.sort().values])


class FdInfinity(Distance):
    """FD∞: the Fréchet distance without its bias in small samples, which falls as 1/N.

    FD is taken of 15 counts, from half of the images to all, and extrapolated along a line in 1/N
    (Chong and Forsyth, arXiv 1911.07023). As samples and reference are equally many here, both
    are thinned out, where the paper thins out the samples alone. With fewer images than features
    FD is no line in 1/N, and much of the bias stays.
    """

    name: ClassVar[str] = "fd-infinity"

    def measure(self, samples: ImageFeatures, real: ImageFeatures) -> float:
        """Fit a line to FD at several counts, each of images drawn at random."""
        fake, known = samples.features.pool, real.features.pool
        most = min(len(fake), len(known))
        counts = np.unique(np.linspace(most / 2, most, POINTS).astype(int))
        if counts[0] < 2 or len(counts) < 2:
            raise CembenchError(f"{most} images are too few for a line")
        values = [frechet_distance(_some(fake, n), _some(known, n)) for n in counts]
        return float(np.polyfit(1 / counts, values, 1)[1])


class AtCount(Distance):
    """A distance between fewer images, drawn at random, as in a table of that count.

    Attributes:
        count: images of each set.
    """

    count: Annotated[int, Field(ge=2)]

    @property
    def title(self) -> str:
        """The name and the count, such as `fd@500`."""
        return self.label or f"{self.name}@{self.count}"

    def measure(self, samples: ImageFeatures, real: ImageFeatures) -> float:
        """Draw images of both sets and compare them."""
        fake, known = (one.features.pool.to(one.device) for one in (samples, real))
        if self.count > min(len(fake), len(known)):
            raise CembenchError(f"count is {self.count}, of {min(len(fake), len(known))} images")
        return self.distance(_some(fake, self.count), _some(known, self.count))

    @abstractmethod
    def distance(self, fake: Tensor, real: Tensor) -> float:
        """Return the distance between features N×D and N×D."""


class FdAt(AtCount):
    """The Fréchet distance at a count."""

    name: ClassVar[str] = "fd"

    def distance(self, fake: Tensor, real: Tensor) -> float:
        """Return the Fréchet distance."""
        return frechet_distance(fake, real)


class KidAt(AtCount):
    """The kernel distance at a count; it has no bias, and more spread the lower the count."""

    name: ClassVar[str] = "kid"

    def distance(self, fake: Tensor, real: Tensor) -> float:
        """Return the kernel distance."""
        return kid(fake, real).value


def _some(features: Tensor, count: int) -> Tensor:
    """Return the features of images drawn at random."""
    return features[torch.randperm(len(features))[:count].to(features.device)]

"""Reference images, their features, and a reference classifier: what samples are compared with."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn.functional import normalize

from cembench.data.resize import eight_bit
from cembench.data.split import Split, subset
from cembench.data.store import Store
from cembench.evaluation.extractors.features import (
    FeatureReader,
    Features,
    ImageFeatures,
    hash_of,
    hash_of_all,
)
from cembench.evaluation.measures.nearest import most_searched, nearest
from cembench.evaluation.measures.reference_classifier import reference_classifier
from cembench.evaluation.metrics import Metric
from cembench.evaluation.metrics import functional as functional
from cembench.evaluation.metrics.functional import Estimate
from cembench.evaluation.sections.samples import SamplesConfig, Scores
from cembench.util.errors import CembenchError, one_line
from cembench.util.processes.distributed import World
from cembench.util.rng import isolated_rng

FEWEST = 20
CLASSIFIER_IMAGES = 5000
TRAINING_IMAGES = 1 << 16  # whose features metrics ask for; all those of CIFAR-10
PREDICTED = 10_000  # images that the classifier is asked about at once
NEIGHBOURS = 3  # whose distances are the radii of precision and recall
SPLIT_IMAGES = 5000  # ten splits of the Inception Score need at least so many


class ReferenceSet:
    """Real images to compare samples with, and the controls beside them.

    Attributes:
        split: the reference images.
        short: whether there are fewer reference images than were asked for.
    """

    def __init__(
        self, config: SamplesConfig, reader: FeatureReader, test: Split, train: Split
    ) -> None:
        self.reader = reader
        self.metrics = config.metrics
        self._holds_training_images = config.reference == "train"
        self.train = train
        source, self.other = (test, train) if config.reference == "test" else (train, test)
        count = min(config.count or len(source), len(source))
        if count < FEWEST:
            raise CembenchError(f"samples: {count} reference images; figures need {FEWEST}")
        self.short = config.count is not None and count < config.count
        self.split = subset(source, count)[0]
        self._initial: dict[str, tuple[str, Scores, Estimate]] = {}

    @cached_property
    def real(self) -> ImageFeatures:
        """The reference images with their features."""
        return self._known(self.split)

    @cached_property
    def floor(self) -> ImageFeatures | None:
        """As many real images that are not the reference; None where there are too few."""
        others = self._others
        return None if others is None else self._known(others)

    @property
    def _others(self) -> Split | None:
        count = len(self.split)
        return subset(self.other, count)[0] if len(self.other) >= count else None

    def read(self, ranks: World) -> None:
        """Read the features of all real images; of several processes, each reads its share.

        These are then in the cache of the reader.
        """
        if ranks.size == 1:
            _ = self.real, self.floor
            return
        images = [self.split, self._others, subset(self.other, CLASSIFIER_IMAGES)[0]]
        if any(metric.against == "train" for metric in self.metrics):
            images.append(subset(self.train, TRAINING_IMAGES)[0])
        for part in images:
            if part is not None:
                self.reader.share(eight_bit(part), ranks)

    def _known(self, split: Split) -> ImageFeatures:
        images = eight_bit(split)
        return self._seen(images, split.labels.cpu(), self.reader.reference(images))

    def features_of(self, images: Store, labels: Tensor) -> ImageFeatures:
        """Return images with labels (N) as the extractor sees them."""
        return self._seen(images, labels, self.reader.read(images))

    def _seen(self, images: Store, labels: Tensor, features: Features) -> ImageFeatures:
        unit, device = self.reader.extractor.unit, self.reader.device
        pairs = torch.device("cpu") if device.type == "mps" else device  # which has no float64
        return ImageFeatures(images, labels, features, unit, pairs)

    @cached_property
    def training(self) -> ImageFeatures:
        """Training images with their features, without logits: always the same `TRAINING_IMAGES`.

        They are read when a metric first asks for them.
        """
        known = self._known(subset(self.train, TRAINING_IMAGES)[0])
        return replace(known, features=Features(known.features.pool))

    @cached_property
    def classifier(self) -> LogisticRegression:
        """A linear classifier on the extractor's features of images outside the reference."""
        images = self._known(subset(self.other, CLASSIFIER_IMAGES)[0])
        return reference_classifier(images.features.unit, images.labels)

    def agreement(self, images: ImageFeatures) -> float:
        """Return the proportion of images that the classifier takes for the intended class."""
        parts = zip(
            images.features.pool.split(PREDICTED), images.labels.split(PREDICTED), strict=True
        )
        right = [self.classifier.predict(normalize(x).numpy()) == y.numpy() for x, y in parts]
        return float(np.concatenate(right).mean())

    @cached_property
    def _gaussian(self) -> functional.Gaussian:
        return functional.gaussian_of(self.real.features.pool)

    def _kid(self, images: ImageFeatures) -> Estimate:
        fake, real = (known.pool.to(known.device) for known in (images, self.real))
        sums = self.real.known("kernel sums", lambda: functional.kernel_sums(real))
        return functional.kid(fake, real, sums)

    def _precision_recall(self, images: ImageFeatures) -> tuple[float, float]:
        fake, real = (known.points.to(known.device) for known in (images, self.real))
        radii = self.real.radii(NEIGHBOURS, real.dtype)
        return functional.precision_recall(fake, real, NEIGHBOURS, radii)

    def scores(self, images: ImageFeatures, distances: Tensor | None) -> tuple[Scores, Estimate]:
        """Compare a set of images with the reference; also return the KID to take gains from.

        KID, precision and recall are those of at most `functional.MOST` images of each set.
        """
        fake, real = images.features, self.real.features
        estimate = self._kid(images)
        splits = 10 if len(fake) >= SPLIT_IMAGES else 1
        score, deviation = None, None
        if fake.logits is not None:
            score, deviation = functional.inception_score(fake.logits, splits)
        precision, recall = self._precision_recall(images)
        judged = images is not self.floor and not bool((images.labels < 0).any())
        return Scores(
            kid=estimate.value,
            kid_error=estimate.error,
            fd=functional.frechet_distance(fake.pool, real.pool, lambda: self._gaussian),
            inception_score=score,
            inception_score_std=deviation if splits > 1 else None,
            precision=precision,
            recall=recall,
            judge_acc=self.agreement(images) if judged else None,
            nearest=None if distances is None else float(distances.median()),
            **self._further(images),
        ), estimate

    def initial_scores(self, start: str, images: Store, labels: Tensor) -> tuple[Scores, Estimate]:
        """Compare initial images of a kind with the reference, unless they were the last ones.

        Args:
            start: the kind.
            images: the initial images.
            labels: the intended classes, N.
        """
        content = hash_of_all(images) + hash_of(labels)
        if self._initial.get(start, ("",))[0] != content:
            distances = self.nearest(images)[0]
            found = self.scores(self.features_of(images, labels), distances)
            self._initial[start] = (content, *found)
        return self._initial[start][1:]

    @cached_property
    def floor_scores(self) -> Scores | None:
        """Scores of the floor."""
        return None if self.floor is None else self.scores(self.floor, None)[0]

    @cached_property
    def agreement_real(self) -> float:
        """Agreement of the classifier with the reference images."""
        return self.agreement(self.real)

    @cached_property
    def nearest_real(self) -> float:
        """Median distance of the reference images to the nearest training image.

        Of a large reference only a fixed random part is searched for; see `nearest`.
        """
        some = subset(self.split, most_searched(self.train))[0]
        return float(self.nearest(eight_bit(some))[0].median())

    def _further(self, images: ImageFeatures) -> dict[str, Any]:
        """Return the figures that a protocol asks for besides, and why others are missing."""
        values: dict[str, float] = {}
        failed: dict[str, str] = {}
        for metric in self.metrics:
            try:
                with isolated_rng(0):
                    values[metric.title] = metric.finite(*self._compared(metric, images))
            except CembenchError as error:
                failed[metric.title] = one_line(error)
        return {"metrics": values, "failed": failed}

    def _compared(
        self, metric: Metric, images: ImageFeatures
    ) -> tuple[ImageFeatures, ImageFeatures]:
        """Return the images that a metric compares, and the real ones that it compares them with.

        A floor of training images would be nearest to itself, so beside training images the
        reference takes its place.
        """
        if metric.against == "reference":
            return images, self.real
        trained_on = images is self.floor and not self._holds_training_images
        return self.real if trained_on else images, self.training

    def nearest(self, images: Store) -> tuple[Tensor, Tensor]:
        """Return the Euclidean pixel distance to the nearest training image, and its number.

        Where a search among all training images would take too long, it is made for the first
        images alone: `most_searched` says how many, a thousand at least.
        """
        count = min(len(images), most_searched(self.train))
        return nearest(images.chosen(torch.arange(count)), self.train)

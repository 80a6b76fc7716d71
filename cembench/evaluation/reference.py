"""The real side of a comparison with samples, and an independent eye on both."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from cembench.data.split import Split, subset
from cembench.evaluation.extractors.features import FeatureReader, Features, Pool, to_uint8
from cembench.evaluation.metrics import functional as quality
from cembench.evaluation.metrics.functional import Estimate
from cembench.evaluation.results import Scores
from cembench.evaluation.sections import SamplesConfig
from cembench.util.errors import CembenchError
from cembench.util.rng import isolated_rng

FEWEST = 20
JUDGE_IMAGES = 5000
SPLIT_IMAGES = 5000  # ten splits of the Inception Score need at least so many


class Comparison:
    """The real side of a comparison: reference, floor, judge and nearest training images."""

    def __init__(
        self, plan: SamplesConfig, reader: FeatureReader, test: Split, train: Split
    ) -> None:
        self.reader = reader
        self.metrics = plan.metrics
        self.train = train
        source, self.other = (test, train) if plan.reference == "test" else (train, test)
        count = min(plan.count or len(source), len(source))
        if count < FEWEST:
            raise CembenchError(f"samples: {count} reference images; figures need {FEWEST}")
        self.short = plan.count is not None and count < plan.count
        self.split = subset(source, count)[0]
        self.real = self._pool(self.split)
        enough = len(self.other) >= count
        self.floor = self._pool(subset(self.other, count)[0]) if enough else None

    def _pool(self, split: Split) -> Pool:
        images = to_uint8(split.pixels()).cpu()
        return self._seen(images, split.labels.cpu(), self.reader.reference(images))

    def pool(self, images: Tensor, labels: Tensor) -> Pool:
        """Return images (uint8, N×C×H×W) with labels (N) as the extractor sees them."""
        return self._seen(images, labels, self.reader.read([images]))

    def _seen(self, images: Tensor, labels: Tensor, features: Features) -> Pool:
        return Pool(images, labels, features, self.reader.extractor.unit)

    @cached_property
    def judge(self) -> LogisticRegression:
        """A linear classifier on the extractor's features of images outside the reference."""
        pool = self._pool(subset(self.other, JUDGE_IMAGES)[0])
        return fit_reference_classifier(pool.features.unit, pool.labels)

    def judged(self, pool: Pool) -> float:
        """Return the share of images that the judge takes for what they should be."""
        return float(self.judge.score(pool.features.unit.numpy(), pool.labels.numpy()))

    def scores(self, pool: Pool, distances: Tensor | None) -> tuple[Scores, Estimate]:
        """Compare a set of images with the reference; also return the KID to take gains from."""
        fake, real = pool.features, self.real.features
        estimate = quality.kid(fake.pool, real.pool)
        splits = 10 if len(fake) >= SPLIT_IMAGES else 1
        score, deviation = quality.inception_score(fake.logits, splits)
        precision, recall = quality.precision_recall(pool.points, self.real.points)
        judged = pool is not self.floor and not bool((pool.labels < 0).any())
        return Scores(
            kid=estimate.value,
            kid_error=estimate.error,
            fd=quality.frechet_distance(fake.pool, real.pool),
            inception_score=score,
            inception_score_std=deviation if splits > 1 else None,
            precision=precision,
            recall=recall,
            judge_acc=self.judged(pool) if judged else None,
            nearest=None if distances is None else float(distances.median()),
            **self._further(pool),
        ), estimate

    def _further(self, pool: Pool) -> dict[str, Any]:
        """Return the figures that a protocol asks for besides, and why others are missing."""
        values: dict[str, float] = {}
        failed: dict[str, str] = {}
        for metric in self.metrics:
            try:
                with isolated_rng(0):
                    values[metric.title] = metric.finite(pool, self.real)
            except CembenchError as error:
                failed[metric.title] = str(error)
        return {"metrics": values, "failed": failed}

    def nearest(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the Euclidean pixel distance to the nearest training image, and its number."""
        train = self._pixels
        found = [
            torch.cdist(part.float().flatten(1).to(train.device) / 255, train).min(1)
            for part in images.split(256)
        ]
        return (
            torch.cat([part.values for part in found]).cpu(),
            torch.cat([part.indices for part in found]).cpu(),
        )

    @cached_property
    def _pixels(self) -> Tensor:
        return self.train.pixels().flatten(1)


def fit_reference_classifier(features: Tensor, labels: Tensor) -> LogisticRegression:
    """Return the linear classifier of features N×D with labels N.

    It is the optimum to many digits: short of it, where solvers stop by default, another machine's
    rounding changes what it says of an image in a hundred.
    """
    judge = LogisticRegression(C=100.0, solver="newton-cg", tol=1e-8, max_iter=1000)
    return judge.fit(features.double().numpy(), labels.numpy())

"""What a record can hold: figures, each with what it takes to judge it."""

from __future__ import annotations

import math
from typing import Any, Literal

import pandas as pd

from cembench.util.settings import Settings, optional_field


class Rate(Settings):
    """A share as a count.

    Attributes:
        correct: images classified as labelled.
        images: images in all.
        low: lower end of the 95 % Wilson interval of the share.
        high: its upper end.
    """

    correct: int
    images: int
    low: float
    high: float

    @property
    def accuracy(self) -> float:
        """The share of correct images."""
        return self.correct / self.images


class Figure(Rate):
    """An accuracy, under attack where there is one.

    Attributes:
        correct_8bit: images that are correct also when all are rounded to 8 bits.
        won: for an attack, the images that each of its stages broke.
        seconds: wall time of the attack.
    """

    correct_8bit: int
    won: dict[str, int] = {}
    seconds: float = 0.0

    @property
    def accuracy_8bit(self) -> float:
        """The accuracy for 8-bit images."""
        return self.correct_8bit / self.images


class CurvePoint(Rate):
    """Images that stand at one radius.

    Attributes:
        eps: the radius; at 0 it is the clean accuracy.
    """

    eps: float


class SanityCheck(Settings):
    """One way in which robustness can be an illusion.

    Attributes:
        name: the problem that it looks for.
        verdict: `skipped` where it does not apply.
        figure: what was measured, as `meaning` says.
        meaning: what the figure is, from where on it fails, and what a failure says.
    """

    name: str
    verdict: Literal["pass", "fail", "skipped"]
    figure: float | None
    meaning: str


class Scores(Settings):
    """How a set of images compares with the reference.

    Attributes:
        kid: kernel inception distance, unbiased.
        kid_error: its standard error.
        fd: Fréchet distance, `FID` with the extractor inception; biased upward in small samples.
        inception_score: exp of the mean KL of an image's ImageNet classes from those of all.
        inception_score_std: its deviation over splits, if there are several.
        precision: share of the images within the reference's neighbourhoods.
        recall: share of the reference within the images' neighbourhoods.
        judge_acc: share that an independent classifier takes for the intended class; None for
            images that it was trained on, and where no class was intended.
        nearest: median Euclidean pixel distance to the nearest training image; far below the
            reference's own it tells of memorisation.
        metrics: what the protocol asks for besides, by title.
        failed: by title, why one of them is missing.
    """

    kid: float
    kid_error: float
    fd: float
    inception_score: float
    inception_score_std: float | None
    precision: float
    recall: float
    judge_acc: float | None
    nearest: float | None
    metrics: dict[str, float] = optional_field({})
    failed: dict[str, str] = optional_field({})


class SamplerFigures(Settings):
    """One sampler on one checkpoint.

    Attributes:
        sampler: its resolved settings.
        ball: the threat model, for samplers that stay in its ball.
        start: where chains begin. Figures of different starts are ranked apart.
        samples: scores of the samples; None after an error.
        seeds: scores of the starts of the same chains, before any step.
        gain: KID of the seeds minus KID of the samples.
        gain_low: lower end of its 95 % interval.
        gain_high: its upper end.
        own_acc: share that the network itself takes for the intended class.
        lse: mean of LSE f(x, ·) over the samples.
        lse_std: its deviation.
        lse_seeds: its mean over the seeds.
        lse_seeds_std: its deviation over the seeds.
        error: why there are no figures.
    """

    sampler: dict[str, Any]
    start: str
    ball: str | None = None
    samples: Scores | None = None
    seeds: Scores | None = None
    gain: float | None = None
    gain_low: float | None = None
    gain_high: float | None = None
    own_acc: float | None = None
    lse: float | None = None
    lse_std: float | None = None
    lse_seeds: float | None = None
    lse_seeds_std: float | None = None
    error: str | None = None


class Generation(Settings):
    """Samples of one checkpoint beside real images.

    Attributes:
        extractor: its name and size, as in columns.
        extractor_sha256: SHA-256 of its weights.
        count: images in each set.
        reference: the split of the real images.
        reference_fingerprint: their SHA-256.
        floor: what real images that are not the reference score.
        judge_real_acc: accuracy of the independent classifier on the reference images.
        nearest_real: median pixel distance of the reference to its nearest training images.
        samplers: by title; the first one leads.
        better: by title of each further metric, which direction is better.
    """

    extractor: str
    extractor_sha256: str
    count: int
    reference: str
    reference_fingerprint: str
    floor: Scores | None
    judge_real_acc: float
    nearest_real: float | None
    samplers: dict[str, SamplerFigures]
    better: dict[str, Literal["higher", "lower"]] = optional_field({})


class MeanStd(Settings):
    """LSE f(x, ·) = log p(x) + log Z over images.

    Attributes:
        mean: its mean.
        std: its standard deviation.
        images: how many.
    """

    mean: float
    std: float
    images: int


class Bin(Settings):
    """The images whose confidence lies between two values.

    Attributes:
        low: the lower one.
        high: the higher one.
        images: how many.
        confidence: their mean confidence; None for no images.
        accuracy: the share that is classified correctly; None for no images.
    """

    low: float
    high: float
    images: int
    confidence: float | None
    accuracy: float | None


class Calibration(Settings):
    """The expected calibration error (Guo et al., arXiv 1706.04599) and the table it sums up.

    Attributes:
        ece: mean distance of confidence and accuracy over the bins, weighed by their images.
        bins: from the lowest confidence to the highest.
    """

    ece: float
    bins: list[Bin]


class OODScores(Settings):
    """How well a score tells test images from others.

    Attributes:
        others: number of images from outside.
        auroc: probability that a test image scores higher than another image.
        fpr95: share of the others that pass when 95 % of the test images do.
    """

    others: int
    auroc: float
    fpr95: float


class EnergyShift(Settings):
    """Test images pushed inside the ball: accuracy, and the mean change of LSE f(x, ·).

    Attributes:
        accuracy: of the pushed images.
        lse_change: that mean.
        lse_error: its standard error.
    """

    accuracy: Rate
    lse_change: float
    lse_error: float


class Density(Settings):
    """What the network says of p(x).

    Attributes:
        calibration: of the confidence.
        energies: LSE on `clean` images, on `pgd` and `ta` images, on `noise`, on outside sets, and
            on the samples and seeds of each sampler, by its title.
        outside_fingerprints: SHA-256 of the outside sets.
        outside: by set, then by score: `log_px`, `max_softmax`, and `slope`, minus the norm of
            ∇ₓ log p(x) (JEM, arXiv 1912.03263, section 5.3).
        pushed: PGD, which raises LSE − f_y, beside TA, which raises f_ŷ − LSE for a random ŷ ≠ y:
            same ball, start, step and steps (CEM, arXiv 2203.13455).
    """

    calibration: Calibration
    energies: dict[str, MeanStd]
    outside: dict[str, dict[str, OODScores]]
    outside_fingerprints: dict[str, str] = {}
    pushed: dict[str, EnergyShift]


def wilson(correct: int, images: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the 95 % Wilson interval of a proportion (Wilson 1927)."""
    share, shrink = correct / images, 1 + z * z / images
    middle = (share + z * z / (2 * images)) / shrink
    half = z * math.sqrt(share * (1 - share) / images + z * z / (4 * images * images)) / shrink
    return max(0.0, middle - half), min(1.0, middle + half)


def count(table: pd.DataFrame, attacks: list[str], seconds: dict[str, float]) -> dict[str, Figure]:
    """Count every figure from a table of verdicts: a row an image."""
    right = table["clean_pred"] == table["label"]
    right_8bit = right & (table["clean_8bit_pred"] == table["label"])
    figures = {"clean": figure(right, right_8bit)}
    worst, worst_8bit = right, right_8bit
    for attack in attacks:
        standing = right & ~table[f"{attack}_broken"]
        standing_8bit = right_8bit & ~table[f"{attack}_broken_8bit"]
        won = table.loc[table[f"{attack}_broken"], f"{attack}_by"].value_counts()
        figures[attack] = figure(standing, standing_8bit).model_copy(
            update={
                "won": {str(stage): int(number) for stage, number in won.items()},
                "seconds": round(seconds.get(attack, 0.0), 3),
            }
        )
        worst, worst_8bit = worst & standing, worst_8bit & standing_8bit
    return {**figures, "worst_case": figure(worst, worst_8bit)} if attacks else figures


def figure(correct: pd.Series, correct_8bit: pd.Series) -> Figure:
    """Count two columns of booleans."""
    return Figure(**rate(correct).dump(), correct_8bit=int(correct_8bit.sum()))


def rate(correct: pd.Series) -> Rate:
    """Count a column of booleans."""
    low, high = wilson(int(correct.sum()), len(correct))
    return Rate(correct=int(correct.sum()), images=len(correct), low=low, high=high)

"""Samples of a network compared with real images."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, field_validator

from cembench.evaluation.diff import Comparison, compared
from cembench.evaluation.extractors import Extractor, extractors
from cembench.evaluation.metrics import TAKEN, Metric, metrics
from cembench.evaluation.section import GatedValue, Section
from cembench.samplers import FOR_TRAINING, Sampler, samplers
from cembench.util.display.charts import EMPTY, Cell, Table
from cembench.util.display.column import Column
from cembench.util.display.format import number, percent, with_error, with_interval
from cembench.util.files.names import require_distinct
from cembench.util.settings import Count, Settings, optional_field

HEAD = ["images", "KID ↓", "FD ↓", "IS ↑", "precision ↑", "recall ↑", "classifier agreement ↑"]
HEAD += ["nearest", "self-agreement ↑", "KID improvement ↑"]

OneSampler = Annotated[SerializeAsAny[Sampler], samplers.field()]
OneMetric = Annotated[SerializeAsAny[Metric], metrics.field()]


class SamplesConfig(Settings):
    """Settings of the samples section (`samples` in a protocol).

    Attributes:
        samplers: the samplers; the first one leads the ranking.
        count: samples of each, and reference images; as many as the reference has unless given,
            and never more.
        extractor: whose features are compared.
        reference: the real images: those that are attacked (`test`), or `train` as in papers.
        batch_size: samples drawn together. The randomness depends on it.
        metrics: further figures, each by its name.
    """

    samplers: Annotated[list[OneSampler], Field(min_length=1)]
    count: Annotated[int, Field(ge=20)] | None = None
    extractor: Annotated[SerializeAsAny[Extractor], extractors.field("lite0")] = Field(
        default_factory=lambda: extractors.parse("lite0")
    )
    reference: Literal["test", "train"] = "test"
    batch_size: Count = 256
    metrics: list[OneMetric] = optional_field([])

    @field_validator("metrics")
    @classmethod
    def _columns(cls, values: list[Metric]) -> list[Metric]:
        titles = [metric.title for metric in values]
        for title in titles:
            if title in TAKEN or "_" in title or titles.count(title) > 1:
                raise ValueError(
                    f"no column can be called '{title}': it is taken, or has a '_'; give a label"
                )
        return values

    @field_validator("samplers")
    @classmethod
    def _distinct(cls, values: list[Sampler]) -> list[Sampler]:
        for sampler in values:
            if sampler.own_threats:
                raise ValueError(f"{sampler.name} {FOR_TRAINING}")
        titles = [sampler.title for sampler in values]
        for title in titles:
            if titles.count(title) > 1:
                raise ValueError(f"two samplers are '{title}'; give each a label of its own")
        require_distinct(titles)
        return values


class Scores(Settings):
    """How a set of images compares with the reference.

    KID, precision, recall, density and coverage compare images pair by pair, and are of the same
    10,000 random images of each set where there are more.

    Attributes:
        kid: kernel inception distance, unbiased.
        kid_error: its standard error.
        fd: Fréchet distance, FID with the extractor inception; biased upward in small samples.
        inception_score: exp of the mean KL of an image's ImageNet classes from those of all; None
            with an extractor that gives no classes.
        inception_score_std: its deviation over splits, if there are several.
        precision: share of the images within the reference's neighbourhoods.
        recall: share of the reference within the images' neighbourhoods.
        judge_acc: share that an independent classifier takes for the intended class; None for
            images that it was trained on, and where no class was intended.
        nearest: median Euclidean pixel distance to the nearest training image; far below the
            reference's own it tells of memorisation. It is of the first samples alone, a thousand
            at least, where the search would take more than 2·10¹² multiplications.
        metrics: further metrics of the protocol, by title.
        failed: by title, why one of them is missing.
    """

    kid: float
    kid_error: float
    fd: float
    inception_score: float | None
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
        start: the kind of initial images. Figures of different kinds are ranked apart.
        samples: scores of the samples; None after an error.
        seeds: scores of the initial images of the same chains.
        gain: KID of the initial images minus KID of the samples.
        gain_low: lower end of its 95 % interval.
        gain_high: its upper end.
        own_acc: share that the network itself takes for the intended class.
        lse: mean of LSE f(x, ·) over the samples.
        lse_std: its deviation.
        lse_seeds: its mean over the initial images.
        lse_seeds_std: its deviation over the initial images.
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
    """Samples of one checkpoint compared with real images.

    Attributes:
        extractor: its name and size, as in columns.
        extractor_sha256: SHA-256 of its weights.
        count: images in each set.
        reference: the split of the real images.
        reference_fingerprint: their SHA-256.
        floor: scores of real images outside the reference.
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


class SamplesSection(Section[SamplesConfig | None, Generation | None]):
    """Samples of several samplers, scored by the features of an extractor."""

    key = "samples"
    setting = (SamplesConfig | None, None)
    result_key = "generation"
    result = (Generation | None, None)

    def for_encoder(self, config: SamplesConfig | None) -> SamplesConfig | None:
        """Return the samplers that need no logits, if there are any."""
        left = [] if config is None else config.samplers
        left = [sampler for sampler in left if sampler.target_type != "class"]
        return config.model_copy(update={"samplers": left}) if config and left else None

    def compare(self, recorded: Generation | None, again: Generation | None) -> list[Comparison]:
        """Compare what all samplers share, then each sampler."""
        old, new = ({} if found is None else found.dump() for found in (recorded, again))
        before, now = old.pop("samplers", {}), new.pop("samplers", {})
        rows = compared("samples", old, new)
        for title in {**now, **before}:
            rows += compared(f"samples {title}", before.get(title), now.get(title))
        return rows

    def columns(self, result: Generation | None) -> dict[str, Any]:
        """Return the scores of each sampler, by sampler, extractor, count and metric."""
        if result is None:
            return {}
        row: dict[str, Any] = {}
        for title, found in result.samplers.items():
            samples, seeds = found.samples, found.seeds
            values = {
                "kid": samples and samples.kid,
                "kid_error": samples and samples.kid_error,
                "kid_seeds": seeds and seeds.kid,
                "gain": found.gain,
                "gain_low": found.gain_low,
                "gain_high": found.gain_high,
                "fd": samples and samples.fd,
                "is": samples and samples.inception_score,
                "precision": samples and samples.precision,
                "recall": samples and samples.recall,
                "judge_acc": samples and samples.judge_acc,
                **{name: samples and samples.metrics.get(name) for name in result.better},
            }
            for metric, value in values.items():
                row[Column(title, result.extractor, result.count, metric).name] = value
        return row

    def details(self, result: Generation | None) -> list[Table]:
        """Return the table of scores: samples, initial images and real images."""
        if result is None:
            return []
        rows = []
        for title, found in result.samplers.items():
            if found.error is not None:
                rows.append([Cell(title), Cell(found.error), *[EMPTY] * 8])
                continue
            rows.append([Cell(title), *_scores(found.samples), *_own(found)])
            rows.append([Cell(f"{title}: initial images"), *_scores(found.seeds), EMPTY, EMPTY])
        rows.append([Cell("real images"), *_scores(result.floor), EMPTY, EMPTY])
        note = (
            f"{result.count} images each, compared with the {result.reference} images "
            f"({result.extractor}). KID ± its standard error. Classifier agreement: images that an "
            "independent classifier, right on "
            f"{percent(result.judge_real_acc)} of real images, takes for the intended class; "
            "self-agreement: that the network itself does. Nearest: median pixel distance to the "
            "nearest training image. KID improvement: KID of the initial images minus KID of the "
            "samples, with its 95 % interval."
        )
        return [Table("Samples", HEAD, rows, note)]

    def gated(self, result: Generation | None) -> dict[str, GatedValue]:
        """Return the KID of each sampler, and how the reference classifier sees its samples."""
        found: dict[str, GatedValue] = {}
        for title, sampler in ({} if result is None else result.samplers).items():
            if (scores := sampler.samples) is None:
                continue
            tolerance = round(3 * scores.kid_error, 6)
            kid = GatedValue(value=scores.kid, tolerance=tolerance, better="lower")
            found[f"kid {title}"] = kid
            if (seen := scores.judge_acc) is not None:
                agreement = GatedValue(value=seen, tolerance=0.05, better="higher")
                found[f"judge_acc {title}"] = agreement
        return found


def _own(found: SamplerFigures) -> list[Cell]:
    gain = EMPTY
    if found.gain is not None and found.gain_low is not None and found.gain_high is not None:
        text = with_interval(found.gain, found.gain_low, found.gain_high)
        gain = Cell.of(found.gain, text)
    return [Cell.of(found.own_acc, percent(found.own_acc)), gain]


def _scores(scores: Scores | None) -> list[Cell]:
    if scores is None:
        return [EMPTY] * 7
    return [
        Cell.of(scores.kid, with_error(scores.kid, scores.kid_error)),
        Cell.of(scores.fd, number(scores.fd, ".4g")),
        Cell.of(scores.inception_score, number(scores.inception_score, ".2f")),
        Cell.of(scores.precision, number(scores.precision, ".2f")),
        Cell.of(scores.recall, number(scores.recall, ".2f")),
        Cell.of(scores.judge_acc, percent(scores.judge_acc)),
        Cell.of(scores.nearest, number(scores.nearest)),
    ]

"""Scores of samples as columns and a table."""

from __future__ import annotations

from typing import Any

from cembench.evaluation.record import Record
from cembench.evaluation.sections.samples import SamplerFigures, Scores
from cembench.util.charts import EMPTY, Cell, Table
from cembench.util.column import Column
from cembench.util.format import number, percent, with_error, with_interval

HEAD = ["images", "KID ↓", "FD ↓", "IS ↑", "precision ↑", "recall ↑", "classifier agreement ↑"]
HEAD += ["nearest", "self-agreement ↑", "KID improvement ↑"]


def columns(record: Record) -> dict[str, Any]:
    """Return the scores of each sampler, by sampler, extractor, count and metric."""
    generation = record.generation
    if generation is None:
        return {}
    row: dict[str, Any] = {}
    for title, found in generation.samplers.items():
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
            "judge_acc": samples and samples.judge_acc,
            **{name: samples and samples.metrics.get(name) for name in generation.better},
        }
        for metric, value in values.items():
            row[Column(title, generation.extractor, generation.count, metric).name] = value
    return row


def details(record: Record) -> list[Table]:
    """Return the table of scores: samples, initial images and real images."""
    generation = record.generation
    if generation is None:
        return []
    rows = []
    for title, found in generation.samplers.items():
        if found.error is not None:
            rows.append([Cell(title), Cell(found.error), *[EMPTY] * 8])
            continue
        rows.append([Cell(title), *_scores(found.samples), *_own(found)])
        rows.append([Cell(f"{title}: initial images"), *_scores(found.seeds), EMPTY, EMPTY])
    rows.append([Cell("real images"), *_scores(generation.floor), EMPTY, EMPTY])
    note = (
        f"{generation.count} images each, compared with the {generation.reference} images "
        f"({generation.extractor}). KID ± its standard error. Classifier agreement: images that an "
        "independent classifier, right on "
        f"{percent(generation.judge_real_acc)} of real images, takes for the intended class; "
        "self-agreement: that the network itself does. Nearest: median pixel distance to the "
        "nearest training image. KID improvement: KID of the initial images minus KID of the "
        "samples, with its 95 % interval."
    )
    return [Table("Samples", HEAD, rows, note)]


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

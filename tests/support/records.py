"""Records and their parts, made in no time."""

import json

from cembench.energy.threat import Threat
from cembench.evaluation.record import Record
from cembench.evaluation.record.files import load_record
from cembench.evaluation.sections.corruption_results import (
    CorruptedImages,
    Corruptions,
    MeanAccuracy,
    SeverityFigures,
)
from cembench.evaluation.sections.robustness import Figure
from cembench.evaluation.sections.samples import Generation, SamplerFigures, Scores
from cembench.evaluation.sections.threats import Threats
from cembench.evaluation.statistics import MeanStd, Rate, wilson
from cembench.util.files.seal import UNSEALED, seal


def figure(correct, images=100):
    low, high = wilson(correct, images)
    return Figure(correct=correct, correct_8bit=correct, images=images, low=low, high=high)


def record(run, robust=50, **changes):
    figures = {"clean": figure(90), "pgd": figure(robust + 1), "autoattack": figure(robust)}
    values = {
        "run": run,
        "method": "at",
        "dataset": "digits",
        "model": "small_cnn",
        "seed": 0,
        "threat": Threat(norm="linf", eps=0.125),
        "protocol": {"name": "standard"},
        "protocol_digest": "abc",
        "data": {},
        "fingerprint": "f",
        "checkpoint_sha256": run,
        "figures": {**figures, "worst_case": figure(robust)},
    }
    return Record(**{**values, **changes})


PLAN = {"name": "standard", "samples": {"samplers": []}, "seed": 0}


def scores(kid):
    return Scores(
        kid=kid,
        kid_error=0.1,
        fd=100 * kid,
        inception_score=2.0,
        inception_score_std=None,
        precision=0.5,
        recall=0.5,
        judge_acc=0.9,
        nearest=1.0,
    )


def sampled(start, kid):
    return SamplerFigures(
        sampler={"name": "rcs", "steps": 10},
        start=start,
        samples=scores(kid),
        seeds=scores(2.0),
        gain=2.0 - kid,
        gain_low=1.5 - kid,
        gain_high=2.5 - kid,
        own_acc=1.0,
        lse=3.0,
        lse_std=1.0,
        lse_seeds=1.0,
    )


def drawn(kid, **changes):
    values = {
        "extractor": "lite0@64",
        "extractor_sha256": "w",
        "count": 100,
        "reference": "test",
        "reference_fingerprint": "f",
        "floor": scores(0.01),
        "judge_real_acc": 0.95,
        "nearest_real": 1.0,
        "samplers": {
            "rcs-gaussian": sampled("gaussian", kid),
            "rcs-noise": sampled("noise", 9 * kid),
        },
    }
    return Generation(**{**values, **changes})


def both(run, robust, kid, **changes):
    return record(run, robust, **{"generation": drawn(kid), "protocol": PLAN, **changes})


def touch(path, *changes):
    record = json.loads(path.read_text())
    for place, value in changes:
        *outer, last = place.split("/")
        section = record
        for key in outer:
            section = section[int(key) if isinstance(section, list) else key]
        section[last] = value
    path.write_bytes(seal(json.dumps(record | {"seal": UNSEALED}).encode()))


def settled(path):
    """Return a record without what depends on the clock."""
    record = load_record(path)
    figures = {
        k: v.model_copy(update={"seconds": 0, "stage_seconds": {}})
        for k, v in record.figures.items()
    }
    rates = {"train_images_per_second": None, "sample_images_per_second": {}}
    clock = {"seconds": 0, "created": "", **rates}
    threats = record.threats and Threats.parse(timeless(record.threats.dump()))
    return record.model_copy(update={"figures": figures, "threats": threats, **clock})


def timeless(values):
    """Return plain values in which every wall time is 0."""
    if not isinstance(values, dict):
        return values
    return {key: 0.0 if key == "seconds" else timeless(value) for key, value in values.items()}


def corrupted(correct, title="corruptions", **changes):
    """Return common corruptions of which two were measured, at two severities."""
    counts = {key: getattr(figure(correct), key) for key in Rate.model_fields}
    lse = MeanStd(mean=3.0, std=1.0, images=100)
    cell = CorruptedImages(**counts, lse=lse, auroc=0.75)
    mean = MeanAccuracy(accuracy=correct / 100, low=0.1, high=0.9)
    at = SeverityFigures(mean=mean, worst_case=Rate(**counts), lse_change=-2.0, auroc=0.75)
    values = {
        "title": title,
        "source": "cifar-c",
        "clean": Rate(**counts),
        "clean_lse": lse,
        "counted": ["fog", "snow"],
        "mean": mean,
        "severities": {"1": at, "5": at},
        "cells": {name: {"1": cell, "5": cell} for name in ("fog", "snow")},
    }
    return Corruptions(**{**values, **changes})

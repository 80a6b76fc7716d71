"""Samples to figures: beside real images, and beside the seeds that their chains started from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cembench import energy
from cembench.energy.threat import Threat
from cembench.evaluation.artifacts import picture_file
from cembench.evaluation.extractors.features import Pool, to_uint8
from cembench.evaluation.metrics.functional import Estimate
from cembench.evaluation.protocol import Protocol
from cembench.evaluation.reference import Comparison
from cembench.evaluation.results import Generation, SamplerFigures, Scores
from cembench.samplers import Sampler
from cembench.samplers.draw import Samples
from cembench.util.errors import SamplingError
from cembench.util.files import write_bytes
from cembench.util.image_grid import grid

Known = dict[str, tuple[Pool, Scores, Estimate]]


def score(
    obtain: Callable[[Sampler], Samples],
    protocol: Protocol,
    threat: Threat,
    comparison: Comparison,
    report: Callable[[str], None],
    pictures: Path | None = None,
) -> Generation:
    """Compare the samples of every sampler of a plan with real images.

    Args:
        obtain: returns all samples of a sampler, with images and starts as bytes; one that raises
            `SamplingError` leaves its error in place of figures.
        protocol: what was drawn, and what to compare with.
        threat: the ball of samplers that stay in it.
        comparison: the real images and the extractor.
        report: told a line a sampler.
        pictures: where `picture_file` puts one a sampler; none are made without.
    """
    plan = protocol.samples
    assert plan is not None
    found: dict[str, SamplerFigures] = {}
    known: Known = {}
    for sampler in plan.samplers:
        what = _what(sampler, threat)
        picture = pictures and picture_file(pictures, sampler.title)
        try:
            figures = _figures(obtain(sampler), comparison, known, sampler.init, picture)
        except SamplingError as error:
            figures = {"error": str(error)}
        found[sampler.title] = SamplerFigures(**what, **figures)
        report(_line(sampler.title, found[sampler.title]))
    return Generation(
        extractor=plan.extractor.title,
        extractor_sha256=comparison.reader.checksum,
        count=len(comparison.split),
        reference="train" if plan.reference == "train" else protocol.split,
        reference_fingerprint=comparison.split.fingerprint,
        **_controls(comparison, plan.reference == "test"),
        samplers=found,
        better={metric.title: metric.better for metric in plan.metrics},
    )


def _controls(comparison: Comparison, unseen: bool) -> dict[str, Any]:
    floor, real = comparison.floor, comparison.real
    return {
        "floor": None if floor is None else comparison.scores(floor, None)[0],
        "judge_real_acc": comparison.judged(real),
        "nearest_real": float(comparison.nearest(real.images)[0].median()) if unseen else None,
    }


def _figures(
    drawn: Samples, comparison: Comparison, known: Known, begins: str, picture: Path | None
) -> dict[str, Any]:
    distances, nearest = comparison.nearest(drawn.images)
    scores, estimate = comparison.scores(comparison.pool(drawn.images, drawn.labels), distances)
    start = known.get(begins)
    if start is None or not torch.equal(start[0].images, drawn.starts):
        seeds = comparison.pool(drawn.starts, drawn.labels)
        found = comparison.scores(seeds, comparison.nearest(drawn.starts)[0])
        known[begins] = start = (seeds, *found)
    gain = start[2].minus(estimate)
    low, high = gain.interval
    if picture is not None:
        write_bytes(picture, _picture(drawn, nearest, comparison))
    return {
        "samples": scores,
        "seeds": start[1],
        "gain": gain.value,
        "gain_low": low,
        "gain_high": high,
        **own_view(drawn),
    }


def own_view(drawn: Samples) -> dict[str, float]:
    """Return what the network's logits say of samples and of their seeds; nothing without any."""
    if drawn.logits.shape[1] == 0:
        return {}
    lse, lse_seeds = energy.marginal(drawn.logits), energy.marginal(drawn.start_logits)
    asked = {"own_acc": drawn.summary()["own_acc"]} if drawn.conditional else {}
    return asked | {
        "lse": float(lse.mean()),
        "lse_std": float(lse.std()),
        "lse_seeds": float(lse_seeds.mean()),
        "lse_seeds_std": float(lse_seeds.std()),
    }


def _picture(drawn: Samples, nearest: Tensor, comparison: Comparison) -> bytes:
    panels = {
        "starts": drawn.starts,
        "samples": drawn.images,
        "nearest training image": to_uint8(comparison.train.pixels(nearest)).cpu(),
    }
    return grid(panels, drawn.labels, list(comparison.split.classes))


def _what(sampler: Sampler, threat: Threat) -> dict[str, Any]:
    ball = str(threat) if sampler.in_ball else None
    return {"sampler": sampler.dump(), "start": sampler.init, "ball": ball}


def _line(title: str, figures: SamplerFigures) -> str:
    if figures.samples is None or figures.seeds is None:
        return f"{title}: {figures.error}"
    failed = "".join(f"; {reason}" for reason in figures.samples.failed.values())
    return (
        f"{title}: KID {figures.samples.kid:.3g} ± {figures.samples.kid_error:.2g}, "
        f"its seeds {figures.seeds.kid:.3g}{failed}"
    )

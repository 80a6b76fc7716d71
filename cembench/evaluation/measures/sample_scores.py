"""Scores of samples: beside real images, and beside the initial images of their chains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cembench import energy
from cembench.energy.threat import Threat
from cembench.evaluation.artifacts import picture_file
from cembench.evaluation.extractors.features import ImageFeatures, to_uint8
from cembench.evaluation.measures.reference import ReferenceSet
from cembench.evaluation.metrics.functional import Estimate
from cembench.evaluation.protocol import Protocol
from cembench.evaluation.sections.samples import Generation, SamplerFigures, Scores
from cembench.samplers import Sampler
from cembench.samplers.draw import Samples
from cembench.util.errors import SamplingError
from cembench.util.files import write_bytes
from cembench.util.image_grid import grid

Known = dict[str, tuple[ImageFeatures, Scores, Estimate]]  # of initial images, by kind of start


def score(
    obtain: Callable[[Sampler], Samples],
    protocol: Protocol,
    threat: Threat,
    reference: ReferenceSet,
    report: Callable[[str], None],
    pictures: Path | None = None,
) -> Generation:
    """Compare the samples of every sampler of a protocol with real images.

    Args:
        obtain: returns all samples of a sampler, with images and starts as bytes; one that raises
            `SamplingError` leaves its error in place of figures.
        protocol: what was drawn, and what to compare with.
        threat: the ball of samplers that stay in it.
        reference: the real images and the extractor.
        report: told one line per sampler.
        pictures: where `picture_file` puts one per sampler; none are made without.
    """
    config = protocol.samples
    found: dict[str, SamplerFigures] = {}
    known: Known = {}
    for sampler in config.samplers:
        what = _what(sampler, threat)
        picture = pictures and picture_file(pictures, sampler.title)
        try:
            figures = _figures(obtain(sampler), reference, known, sampler.init, picture)
        except SamplingError as error:
            figures = {"error": str(error)}
        found[sampler.title] = SamplerFigures(**what, **figures)
        report(_line(sampler.title, found[sampler.title]))
    return Generation(
        extractor=config.extractor.title,
        extractor_sha256=reference.reader.checksum,
        count=len(reference.split),
        reference="train" if config.reference == "train" else protocol.split,
        reference_fingerprint=reference.split.fingerprint,
        **_controls(reference, config.reference == "test"),
        samplers=found,
        better={metric.title: metric.better for metric in config.metrics},
    )


def _controls(reference: ReferenceSet, unseen: bool) -> dict[str, Any]:
    floor, real = reference.floor, reference.real
    return {
        "floor": None if floor is None else reference.scores(floor, None)[0],
        "judge_real_acc": reference.agreement(real),
        "nearest_real": float(reference.nearest(real.images)[0].median()) if unseen else None,
    }


def _figures(
    drawn: Samples, reference: ReferenceSet, known: Known, start: str, picture: Path | None
) -> dict[str, Any]:
    distances, nearest = reference.nearest(drawn.images)
    images = reference.features_of(drawn.images, drawn.labels)
    scores, estimate = reference.scores(images, distances)
    initial = known.get(start)
    if initial is None or not torch.equal(initial[0].images, drawn.starts):
        starts = reference.features_of(drawn.starts, drawn.labels)
        found = reference.scores(starts, reference.nearest(drawn.starts)[0])
        known[start] = initial = (starts, *found)
    gain = initial[2].minus(estimate)
    low, high = gain.interval
    if picture is not None:
        write_bytes(picture, _picture(drawn, nearest, reference))
    return {
        "samples": scores,
        "seeds": initial[1],
        "gain": gain.value,
        "gain_low": low,
        "gain_high": high,
        **own_view(drawn),
    }


def own_view(drawn: Samples) -> dict[str, float]:
    """Return what the network's own logits say of samples and of their initial images.

    There is nothing without logits.
    """
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


def _picture(drawn: Samples, nearest: Tensor, reference: ReferenceSet) -> bytes:
    panels = {
        "starts": drawn.starts,
        "samples": drawn.images,
        "nearest training image": to_uint8(reference.train.pixels(nearest)).cpu(),
    }
    return grid(panels, drawn.labels, list(reference.split.classes))


def _what(sampler: Sampler, threat: Threat) -> dict[str, Any]:
    ball = str(threat) if sampler.in_ball else None
    return {"sampler": sampler.dump(), "start": sampler.init, "ball": ball}


def _line(title: str, figures: SamplerFigures) -> str:
    if figures.samples is None or figures.seeds is None:
        return f"{title}: {figures.error}"
    failed = "".join(f"; {reason}" for reason in figures.samples.failed.values())
    return (
        f"{title}: KID {figures.samples.kid:.3g} ± {figures.samples.kid_error:.2g}, "
        f"of its initial images {figures.seeds.kid:.3g}{failed}"
    )

"""Scores of samples, compared with real images and with their initial images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from cembench import energy
from cembench.data.resize import eight_bit
from cembench.evaluation.measure import Measurement
from cembench.evaluation.measures.reference import ReferenceSet
from cembench.evaluation.sample_set import SampleSet
from cembench.evaluation.sections.samples import Generation, SamplerFigures, SamplesConfig
from cembench.evaluation.statistics import LARGE
from cembench.samplers.draw import accuracy
from cembench.util.display.image_grid import grid, shown_rows
from cembench.util.errors import SamplingError, one_line
from cembench.util.files import write_bytes
from cembench.util.files.layout import RunLayout
from cembench.util.progress import Bar
from cembench.util.stages import stage


def score(
    config: SamplesConfig, measurement: Measurement, reference: ReferenceSet, bar: Bar
) -> Generation:
    """Compare the samples of every sampler with real images.

    A sampler that raises `SamplingError` has its error in place of figures.
    """
    context, source = measurement.context, measurement.samples
    threat = context.header.threat
    found: dict[str, SamplerFigures] = {}
    for sampler in config.samplers:
        picture = RunLayout.picture(context.path, sampler.title) if source.pictures else None
        try:
            drawn = source.obtain(sampler, bar)
            figures = _figures(drawn, reference, sampler.init, picture)
        except SamplingError as error:
            figures = {"error": one_line(error)}
        found[sampler.title] = SamplerFigures(
            sampler=sampler.dump(),
            start=sampler.init,
            ball=str(threat) if sampler.in_ball else None,
            **figures,
        )
        bar.report(_line(sampler.title, found[sampler.title]))
    return Generation(
        extractor=config.extractor.title,
        extractor_sha256=reference.reader.checksum,
        count=len(reference.split),
        reference="train" if config.reference == "train" else context.protocol.split,
        reference_fingerprint=reference.split.fingerprint,
        floor=reference.floor_scores,
        judge_real_acc=reference.agreement_real,
        nearest_real=reference.nearest_real if config.reference == "test" else None,
        samplers=found,
        better={metric.title: metric.better for metric in config.metrics},
    )


def _figures(
    drawn: SampleSet, reference: ReferenceSet, start: str, picture: Path | None
) -> dict[str, Any]:
    distances, nearest = reference.nearest(drawn.images)
    images = reference.features_of(drawn.images, drawn.labels)
    scores, estimate = reference.scores(images, distances)
    initial, initial_estimate = reference.initial_scores(start, drawn.starts, drawn.labels)
    gain = initial_estimate.minus(estimate)
    low, high = gain.interval
    if picture is not None:
        with stage("figures"):
            write_bytes(picture, _picture(drawn, nearest, reference))
    return {
        "samples": scores,
        "seeds": initial,
        "gain": gain.value,
        "gain_low": low,
        "gain_high": high,
        **_own_scores(drawn),
    }


def _own_scores(drawn: SampleSet) -> dict[str, float]:
    """Return what the network's logits say of samples and initial images, if it has any."""
    if drawn.logits.shape[1] == 0:
        return {}
    lse, lse_seeds = (energy.marginal(out) for out in (drawn.logits, drawn.start_logits))
    if max(lse.abs().max(), lse_seeds.abs().max()) > LARGE:
        lse, lse_seeds = lse.double(), lse_seeds.double()
    asked = {"own_acc": accuracy(drawn.logits, drawn.labels)} if drawn.conditional else {}
    return asked | {
        "lse": float(lse.mean()),
        "lse_std": float(lse.std()),
        "lse_seeds": float(lse_seeds.mean()),
        "lse_seeds_std": float(lse_seeds.std()),
    }


def _picture(drawn: SampleSet, nearest: Tensor, reference: ReferenceSet) -> bytes:
    shown = shown_rows(drawn.labels[: len(nearest)])
    panels = {
        "starts": drawn.starts.batch(shown),
        "samples": drawn.images.batch(shown),
        "nearest training image": eight_bit(reference.train).batch(nearest[shown]).cpu(),
    }
    return grid(panels, drawn.labels[shown], list(reference.split.classes))


def _line(title: str, figures: SamplerFigures) -> str:
    if figures.samples is None or figures.seeds is None:
        return f"{title}: {figures.error}"
    failed = "".join(f"; {reason}" for reason in figures.samples.failed.values())
    return (
        f"{title}: KID {figures.samples.kid:.3g} ± {figures.samples.kid_error:.2g}, "
        f"of its initial images {figures.seeds.kid:.3g}{failed}"
    )

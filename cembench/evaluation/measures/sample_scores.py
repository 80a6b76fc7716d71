"""Scores of samples, compared with real images and with their initial images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from cembench import energy
from cembench.data.resize import eight_bit
from cembench.evaluation.cache import kept
from cembench.evaluation.measure import Measurement
from cembench.evaluation.measures.reference import ReferenceSet
from cembench.evaluation.sample_set import SampleSet
from cembench.evaluation.sections.samples import Generation, SamplerFigures, SamplesConfig
from cembench.evaluation.statistics import LARGE
from cembench.samplers import Sampler
from cembench.samplers.draw import accuracy
from cembench.util.display.image_grid import grid, shown_rows
from cembench.util.errors import SamplingError, one_line
from cembench.util.files import write_bytes
from cembench.util.files.layout import RunLayout
from cembench.util.processes.distributed import World
from cembench.util.progress import Bar
from cembench.util.stages import stage


def score(
    config: SamplesConfig, measurement: Measurement, reference: ReferenceSet, bar: Bar
) -> Generation:
    """Compare the samples of every sampler with real images.

    A sampler that raises `SamplingError` has its error in place of figures.
    """
    context = measurement.context
    found: dict[str, SamplerFigures] = {}
    for sampler in config.samplers:
        found[sampler.title] = _scored(sampler, measurement, reference, bar)
        bar.report(_line(sampler.title, found[sampler.title]))
    return Generation(
        extractor=config.extractor.title,
        extractor_sha256=reference.reader.checksum,
        count=len(reference.split),
        reference="train" if config.reference == "train" else context.protocol.split,
        reference_fingerprint=reference.split.fingerprint,
        **_of_real_images(config, measurement, reference),
        samplers=found,
        better={metric.title: metric.better for metric in config.metrics},
    )


def share_scores(
    config: SamplesConfig,
    measurement: Measurement,
    reference: ReferenceSet,
    bar: Bar,
    ranks: World,
) -> None:
    """Compute this process's share of the scores of real images and samplers, into the cache."""
    for sampler in ranks.deal("scores", [None, *config.samplers]):
        if sampler is None:
            _of_real_images(config, measurement, reference)
        else:
            _scored(sampler, measurement, reference, bar)


def _of_real_images(
    config: SamplesConfig, measurement: Measurement, reference: ReferenceSet
) -> dict[str, Any]:
    def make() -> dict[str, Any]:
        floor = reference.floor_scores
        return {
            "floor": None if floor is None else floor.dump(),
            "judge_real_acc": reference.agreement_real,
            "nearest_real": reference.nearest_real if config.reference == "test" else None,
        }

    return dict(kept(measurement.context.cache, "scores", make))


def _scored(
    sampler: Sampler, measurement: Measurement, reference: ReferenceSet, bar: Bar
) -> SamplerFigures:
    """Return the figures of a sampler, or its error: from the cache, or computed and kept there."""
    context, source = measurement.context, measurement.samples
    picture = RunLayout.picture(context.path, sampler.title) if source.pictures else None

    def make() -> dict[str, Any]:
        try:
            drawn = source.obtain(sampler, bar)
            figures = _figures(drawn, reference, sampler.init, picture)
        except SamplingError as error:
            figures = {"error": one_line(error)}
        return SamplerFigures(
            sampler=sampler.dump(),
            start=sampler.init,
            ball=str(context.header.threat) if sampler.in_ball else None,
            **figures,
        ).dump()

    return SamplerFigures.parse(kept(context.cache, f"scores.{sampler.title}", make))


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

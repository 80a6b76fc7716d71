"""How well a checkpoint generates: draw, quantise once, compare with real images, keep controls."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cembench import energy
from cembench.errors import SamplingError
from cembench.evaluation.comparison import SPLIT_IMAGES, Comparison, Pool
from cembench.evaluation.extractors.inception import CHECKSUM
from cembench.evaluation.features import to_uint8
from cembench.evaluation.figures import Generation, SamplerFigures, Scores, Spread
from cembench.evaluation.parts import Parts
from cembench.evaluation.plans import SamplePlan
from cembench.evaluation.protocol import Protocol
from cembench.evaluation.quality import Estimate
from cembench.files import write_bytes
from cembench.grid import grid
from cembench.guard import derive
from cembench.progress import Bar
from cembench.samplers import Sampler
from cembench.sampling import Origins, Samples, chunks, draw

Known = dict[str, tuple[Pool, Scores, Estimate]]


def measure(
    model: nn.Module,
    origins: Origins,
    protocol: Protocol,
    comparison: Comparison,
    parts: Parts,
    pictures: Path,
) -> tuple[Generation, list[str]]:
    """Draw all samples of a plan and score them.

    Chunks of drawn samples are kept in `parts`, so a killed evaluation goes on with the next one
    and memory holds their features and bytes alone.

    Args:
        model: the network, frozen and in evaluation mode.
        origins: where chains start.
        protocol: what to draw and what to compare; its seed decides starts and noise.
        comparison: the real images and the extractor.
        parts: where finished chunks are.
        pictures: prefix of the pictures, one a sampler.

    Returns:
        The figures, and what to be careful about.
    """
    plan, seed = protocol.samples, protocol.seed
    assert plan is not None
    count = len(comparison.split)
    trained = plan.reference == "test"
    found: dict[str, SamplerFigures] = {}
    known: Known = {}
    with Bar(f"samples {origins.passport.data.title}", count * len(plan.samplers)) as bar:
        for sampler in plan.samplers:
            bar.advance(0, sampler.title)
            try:
                drawn = Samples.joined(
                    list(_draw(model, sampler, origins, count, plan, seed, parts, bar))
                )
                found[sampler.title] = _figures(
                    sampler, drawn, origins, comparison, known, pictures
                )
            except SamplingError as error:
                found[sampler.title] = SamplerFigures(**_what(sampler, origins), error=str(error))
            bar.report(_line(sampler.title, found[sampler.title]))
    floor = comparison.floor
    real = comparison.real
    generation = Generation(
        extractor=plan.extractor.title,
        extractor_sha256=comparison.reader.checksum,
        count=count,
        reference="train" if plan.reference == "train" else protocol.split,
        reference_fingerprint=comparison.split.fingerprint,
        floor=None if floor is None else comparison.scores(floor, None)[0],
        judge_real_acc=comparison.judged(real),
        nearest_real=float(comparison.nearest(real.images)[0].median()) if trained else None,
        samplers=found,
    )
    return generation, _cautions(generation, comparison, plan)


def _draw(
    model: nn.Module,
    sampler: Sampler,
    origins: Origins,
    count: int,
    plan: SamplePlan,
    seed: int,
    parts: Parts,
    bar: Bar,
) -> Iterator[Samples]:
    """Yield chunks with images and starts as bytes."""
    labels = chunks(count, len(origins.passport.classes), plan.batch_size)
    for number, y in enumerate(labels):
        name = f"samples.{sampler.title}.{number}"
        values = parts.tensors(name)
        if values is None:
            stream = derive(seed, "samples", number)
            drawn = draw(model, sampler, y.to(origins.device), origins, stream).cpu()
            values = vars(drawn) | {
                "images": to_uint8(drawn.images),
                "starts": to_uint8(drawn.starts),
            }
            parts.keep_tensors(name, values)
        bar.advance(len(y))
        yield Samples(**values)


def _figures(
    sampler: Sampler,
    drawn: Samples,
    origins: Origins,
    comparison: Comparison,
    known: Known,
    pictures: Path,
) -> SamplerFigures:
    distances, nearest = comparison.nearest(drawn.images)
    pool = Pool(drawn.images, drawn.labels, comparison.reader.read([drawn.images]))
    start = known.get(sampler.begins)
    if start is None or not torch.equal(start[0].images, drawn.starts):
        seeds = Pool(drawn.starts, drawn.labels, comparison.reader.read([drawn.starts]))
        found = comparison.scores(seeds, comparison.nearest(drawn.starts)[0])
        known[sampler.begins] = start = (seeds, *found)
    scores, estimate = comparison.scores(pool, distances)
    gain = start[2].minus(estimate)
    lse, lse_seeds = energy.marginal(drawn.logits), energy.marginal(drawn.start_logits)
    picture = grid(
        {
            "starts": drawn.starts,
            "samples": drawn.images,
            "nearest training image": to_uint8(comparison.train.pixels(nearest)).cpu(),
        },
        drawn.labels,
        list(comparison.split.classes),
    )
    write_bytes(pictures.with_name(f"{pictures.name}-{sampler.title}.png"), picture)
    return SamplerFigures(
        **_what(sampler, origins),
        samples=scores,
        seeds=start[1],
        gain=gain.value,
        gain_low=gain.interval[0],
        gain_high=gain.interval[1],
        own_acc=drawn.summary()["own_acc"],
        lse=float(lse.mean()),
        lse_std=float(lse.std()),
        lse_seeds=float(lse_seeds.mean()),
        lse_seeds_std=float(lse_seeds.std()),
    )


def drawn(generation: Generation) -> dict[str, Spread]:
    """Return LSE f(x, ·) on the samples of each sampler and on their seeds."""
    spreads = {}
    for title, found in generation.samplers.items():
        for name, mean, std in (
            (title, found.lse, found.lse_std),
            (f"{title} seeds", found.lse_seeds, found.lse_seeds_std),
        ):
            if mean is not None and std is not None:
                spreads[name] = Spread(mean=mean, std=std, images=generation.count)
    return spreads


def _line(title: str, figures: SamplerFigures) -> str:
    if figures.samples is None or figures.seeds is None:
        return f"{title}: {figures.error}"
    return (
        f"{title}: KID {figures.samples.kid:.3g} ± {figures.samples.kid_error:.2g}, "
        f"its seeds {figures.seeds.kid:.3g}"
    )


def _what(sampler: Sampler, origins: Origins) -> dict[str, Any]:
    ball = str(origins.threat) if sampler.in_ball else None
    return {"sampler": sampler.dump(), "start": sampler.begins, "ball": ball}


def _cautions(found: Generation, comparison: Comparison, plan: SamplePlan) -> list[str]:
    extractor, count = plan.extractor, found.count
    classes = len(comparison.split.classes)
    doubts = {
        f"FD-{extractor.title} is biased: {count} images for {extractor.dimension} features; "
        "compare it with the floor alone, and lead with KID": count < 2 * extractor.dimension,
        f"IS-{extractor.title} on {count} images is biased downward, without splits": count
        < SPLIT_IMAGES,
        "no real-against-real floor: the other split has too few images": found.floor is None,
        f"samples: the reference has only {count} of {plan.count} images": comparison.short,
        f"samples: {count} images do not reach all {classes} classes": count < classes,
        "the weights are not those of the TF Inception of papers": extractor.title == "inception"
        and not found.extractor_sha256.startswith(CHECKSUM),
    }
    return [text for text, doubtful in doubts.items() if doubtful]

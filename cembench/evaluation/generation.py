"""How well a checkpoint generates: draw, quantise once, compare with real images, keep controls."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from cembench import energy
from cembench.errors import CembenchError, ModelError
from cembench.evaluation import quality
from cembench.evaluation.comparison import SPLIT_IMAGES, Comparison, Pool
from cembench.evaluation.extractors import Extractor
from cembench.evaluation.features import to_uint8
from cembench.evaluation.figures import Generation, SamplerFigures, Scores
from cembench.evaluation.parts import Parts
from cembench.evaluation.protocol import Protocol, SamplePlan
from cembench.files import write_bytes
from cembench.grid import grid
from cembench.guard import derive
from cembench.progress import Bar
from cembench.samplers import Sampler
from cembench.sampling import Origins, Samples, chunks, draw


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
    known: dict[str, tuple[Pool, Scores]] = {}
    with Bar(f"samples {origins.passport.data.title}", count * len(plan.samplers)) as bar:
        for sampler in plan.samplers:
            bar.advance(0, sampler.title)
            try:
                drawn = Samples.joined(
                    list(_draw(model, sampler, origins, count, plan, seed, parts, bar))
                )
                found[sampler.title] = _figures(sampler, drawn, comparison, known, pictures)
            except ModelError:
                raise
            except CembenchError as error:
                found[sampler.title] = SamplerFigures(
                    sampler=sampler.dump(), start=sampler.begins, error=str(error)
                )
            bar.report(_line(sampler.title, found[sampler.title]))
    floor = comparison.floor
    real = comparison.real
    generation = Generation(
        extractor=plan.extractor.title,
        extractor_sha256=comparison.reader.checksum,
        count=count,
        reference="train" if plan.reference == "train" else protocol.split,
        reference_fingerprint=comparison.split.fingerprint,
        floor=None if floor is None else comparison.scores(floor, None),
        judge_real_acc=float(
            comparison.judge.score(real.features.unit.numpy(), real.labels.numpy())
        ),
        nearest_real=float(comparison.nearest(real.images)[0].median()) if trained else None,
        samplers=found,
    )
    return generation, _cautions(generation, plan.extractor)


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
    comparison: Comparison,
    known: dict[str, tuple[Pool, Scores]],
    pictures: Path,
) -> SamplerFigures:
    distances, nearest = comparison.nearest(drawn.images)
    pool = Pool(drawn.images, drawn.labels, comparison.reader.read([drawn.images]))
    start = known.get(sampler.begins)
    if start is None or not torch.equal(start[0].images, drawn.starts):
        seeds = Pool(drawn.starts, drawn.labels, comparison.reader.read([drawn.starts]))
        scores = comparison.scores(seeds, comparison.nearest(drawn.starts)[0])
        known[sampler.begins] = start = (seeds, scores)
    real = comparison.real.features.pool
    gain = quality.kid(start[0].features.pool, real).minus(quality.kid(pool.features.pool, real))
    lse = energy.marginal(drawn.logits)
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
        sampler=sampler.dump(),
        start=sampler.begins,
        samples=comparison.scores(pool, distances),
        seeds=start[1],
        gain=gain.value,
        gain_low=gain.interval[0],
        gain_high=gain.interval[1],
        own_acc=drawn.summary()["own_acc"],
        lse=float(lse.mean()),
        lse_std=float(lse.std()),
        lse_seeds=drawn.summary()["lse_start"],
    )


def _line(title: str, figures: SamplerFigures) -> str:
    if figures.samples is None or figures.seeds is None:
        return f"{title}: {figures.error}"
    return (
        f"{title}: KID {figures.samples.kid:.3g} ± {figures.samples.kid_error:.2g}, "
        f"its seeds {figures.seeds.kid:.3g}"
    )


def _cautions(generation: Generation, extractor: Extractor) -> list[str]:
    cautions = []
    if generation.count < 2 * extractor.dimension:
        cautions.append(
            f"FD-{extractor.title} is biased: {generation.count} images for {extractor.dimension} "
            "features; compare it with the floor alone, and lead with KID"
        )
    if generation.count < SPLIT_IMAGES:
        cautions.append(
            f"IS-{extractor.title} on {generation.count} images is biased downward, without splits"
        )
    if generation.floor is None:
        cautions.append("no real-against-real floor: the other split has too few images")
    return cautions

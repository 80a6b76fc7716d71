"""How well a checkpoint generates: draw, quantise once, compare with real images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from torch import nn

from cembench.evaluation.comparison import SPLIT_IMAGES, Comparison
from cembench.evaluation.engine import EXAMPLES
from cembench.evaluation.extractors.inception import CHECKSUM
from cembench.evaluation.features import to_uint8
from cembench.evaluation.figures import Generation, Spread
from cembench.evaluation.parts import Parts
from cembench.evaluation.plans import SamplePlan
from cembench.evaluation.protocol import Protocol
from cembench.evaluation.scoring import score
from cembench.guard import derive
from cembench.origins import Origins
from cembench.progress import Bar
from cembench.samplers import Sampler
from cembench.sampling import Samples, chunks, draw


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
    plan, count = protocol.samples, len(comparison.split)
    assert plan is not None
    example = origins.data.pixels(slice(EXAMPLES))
    climber = protocol.engine.prepare(model, example)
    with Bar(f"samples {origins.passport.data.title}", count * len(plan.samplers)) as bar:

        def obtain(sampler: Sampler) -> Samples:
            bar.advance(0, sampler.title)
            found = _draw(model, climber, sampler, origins, count, protocol, parts, bar)
            return Samples.joined(list(found))

        threat = origins.threat
        generation = score(obtain, protocol, threat, comparison, bar.report, pictures)
    return generation, _cautions(generation, comparison, plan)


def _draw(
    model: nn.Module,
    climber: nn.Module,
    sampler: Sampler,
    origins: Origins,
    count: int,
    protocol: Protocol,
    parts: Parts,
    bar: Bar,
) -> Iterator[Samples]:
    """Yield chunks with images and starts as bytes."""
    plan = protocol.samples
    assert plan is not None
    labels = chunks(sampler, count, len(origins.passport.classes), plan.batch_size)
    for number, y in enumerate(labels):
        name = f"samples.{sampler.title}.{number}"
        values = parts.tensors(name)
        if values is None:
            y = y.to(origins.device)
            seed = chunk_seed(protocol, number)
            drawn = draw(model, sampler, y, origins, seed, climber=climber).cpu()
            values = vars(drawn) | {
                "images": to_uint8(drawn.images),
                "starts": to_uint8(drawn.starts),
            }
            parts.keep_tensors(name, values)
        bar.advance(len(y))
        yield Samples(**values)


def chunk_seed(protocol: Protocol, number: int) -> int:
    """Return the seed of a chunk of samples."""
    return derive(protocol.seed, "samples", number)


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

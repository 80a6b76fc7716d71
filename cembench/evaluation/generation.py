"""How well a checkpoint generates: draw, quantise once, compare with real images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from cembench.evaluation.artifacts import trajectory_file
from cembench.evaluation.cache import Parts
from cembench.evaluation.extractors.features import to_uint8
from cembench.evaluation.extractors.inception import CHECKSUM
from cembench.evaluation.protocol import Protocol
from cembench.evaluation.reference import SPLIT_IMAGES, Comparison
from cembench.evaluation.results import Generation, MeanStd
from cembench.evaluation.sample_scores import score
from cembench.evaluation.sections import SamplesConfig
from cembench.models.engine import EXAMPLES
from cembench.samplers import Sampler
from cembench.samplers.context import Origins
from cembench.samplers.draw import Samples, asked, chunks, draw
from cembench.samplers.energy import EnergySampler
from cembench.samplers.trajectory import Trace
from cembench.util.distributed import ALONE, World
from cembench.util.errors import SamplingError
from cembench.util.files import write_bytes
from cembench.util.progress import Bar
from cembench.util.rng import derive


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
        pictures: where `picture_file` and `trajectory_file` put theirs, two a sampler.

    Returns:
        The figures, and what to be careful about.
    """
    plan, count = protocol.samples, len(comparison.split)
    assert plan is not None
    example = origins.data.pixels(slice(EXAMPLES))
    climber = protocol.engine.prepare(model, example)
    with Bar(f"samples {origins.metadata.data.title}", count * len(plan.samplers)) as bar:

        def obtain(sampler: Sampler) -> Samples:
            bar.advance(0, sampler.title)
            strip = trajectory_file(pictures, sampler.title)
            drawing = Drawing(model, climber, origins, protocol, parts, bar)
            return Samples.joined(list(drawing.chunks(sampler, count, strip)))

        threat = origins.threat
        generation = score(obtain, protocol, threat, comparison, bar.report, pictures)
    return generation, _cautions(generation, comparison, plan)


def draw_share(
    model: nn.Module,
    origins: Origins,
    protocol: Protocol,
    comparison: Comparison,
    parts: Parts,
    pictures: Path,
    world: World,
) -> None:
    """Draw the chunks that are this process's share, and read their features, into `parts`.

    A sampler that fails is left to the first process, which meets the same failure.
    """
    plan, count = protocol.samples, len(comparison.split)
    assert plan is not None
    climber = protocol.engine.prepare(model, origins.data.pixels(slice(EXAMPLES)))
    comparison.reader.keep = parts
    with Bar(f"samples {origins.metadata.data.title}", count * len(plan.samplers)) as bar:
        drawing = Drawing(model, climber, origins, protocol, parts, bar)
        for sampler in plan.samplers:
            strip = trajectory_file(pictures, sampler.title)
            with suppress(SamplingError):
                for samples in drawing.chunks(sampler, count, strip, world):
                    comparison.reader.read([samples.images])
                    comparison.reader.read([samples.starts])


@dataclass(frozen=True)
class Drawing:
    """Samples about to be drawn from a network."""

    model: nn.Module
    climber: nn.Module
    origins: Origins
    protocol: Protocol
    parts: Parts
    bar: Bar

    def chunks(
        self, sampler: Sampler, count: int, strip: Path, world: World = ALONE
    ) -> Iterator[Samples]:
        """Yield chunks with images and starts as bytes, and draw how the first chains move.

        Of several processes, each has its share.
        """
        plan = self.protocol.samples
        assert plan is not None
        labels = chunks(sampler, count, len(self.origins.metadata.classes), plan.batch_size)
        for number, y in world.shard(list(enumerate(labels))):
            name = f"samples.{sampler.title}.{number}"
            values = self.parts.tensors(name)
            if values is None:
                values = self._chunk(sampler, y.to(self.origins.device), number, strip)
                self.parts.keep_tensors(name, values)
            self.bar.advance(len(y))
            yield Samples(**values)

    def _chunk(self, sampler: Sampler, y: Tensor, number: int, strip: Path) -> dict[str, Tensor]:
        seed, trace, visit = chunk_seed(self.protocol, number), None, None
        if number == 0 and isinstance(sampler, EnergySampler):
            trace = Trace(sampler)
            visit = trace.follow(asked(sampler, y, self.origins, seed))
        drawn = draw(self.model, sampler, y, self.origins, seed, visit, self.climber).cpu()
        if trace is not None:
            write_bytes(strip, trace.render(self.origins.metadata.classes, strip.suffix))
        return vars(drawn) | {"images": to_uint8(drawn.images), "starts": to_uint8(drawn.starts)}


def chunk_seed(protocol: Protocol, number: int) -> int:
    """Return the seed of a chunk of samples."""
    return derive(protocol.seed, "samples", number)


def drawn(generation: Generation) -> dict[str, MeanStd]:
    """Return LSE f(x, ·) on the samples of each sampler and on their seeds."""
    spreads = {}
    for title, found in generation.samplers.items():
        for name, mean, std in (
            (title, found.lse, found.lse_std),
            (f"{title} seeds", found.lse_seeds, found.lse_seeds_std),
        ):
            if mean is not None and std is not None:
                spreads[name] = MeanStd(mean=mean, std=std, images=generation.count)
    return spreads


def _cautions(found: Generation, comparison: Comparison, plan: SamplesConfig) -> list[str]:
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

"""Samples of a network: drawn chunk by chunk, or read from what was saved, and scored."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from cembench.data.store.memory import MemoryStore
from cembench.evaluation.artifacts import saved_samples
from cembench.evaluation.cache import ChunkCache, sample_key
from cembench.evaluation.context import EvaluationContext
from cembench.evaluation.diff import Comparison
from cembench.evaluation.extractors.features import to_uint8
from cembench.evaluation.measure import Measurement
from cembench.evaluation.measures.reference import SPLIT_IMAGES, ReferenceSet
from cembench.evaluation.measures.sample_scores import score, share_scores
from cembench.evaluation.sample_set import SampleSet
from cembench.evaluation.sections.samples import Generation, SamplesConfig
from cembench.evaluation.throughput import Speed
from cembench.models.engine import EXAMPLES
from cembench.samplers import Sampler
from cembench.samplers.draw import Samples, chunks, draw, intended_labels
from cembench.samplers.energy import EnergySampler
from cembench.samplers.trajectory import Trace
from cembench.util.errors import CembenchError, SamplingError
from cembench.util.files import write_bytes
from cembench.util.files.layout import RunLayout
from cembench.util.processes.distributed import ALONE, World
from cembench.util.progress import Bar
from cembench.util.rng import derive
from cembench.util.stages import stage

NEAR = 0.1  # of the largest logit: rounding to bytes moves logits by a tenth of that


def measure(config: SamplesConfig, measurement: Measurement) -> Generation:
    """Compare the samples of all samplers with the reference."""
    reference = measurement.context.reference
    assert reference is not None
    with _bar(measurement.context, reference) as bar:
        found = score(config, measurement, reference, bar)
    if measurement.context.header.kind == "classifier" and measurement.target.no_gradient:
        failed = [title for title, one in found.samplers.items() if one.error is not None]
        measurement.not_applicable += [f"samples {title}" for title in failed]
    measurement.warnings.update(_cautions(found, reference, config))
    return found


def share(config: SamplesConfig, measurement: Measurement, ranks: World) -> None:
    """Compute this process's share of the scores of samplers and of real images."""
    reference = measurement.context.reference
    assert reference is not None
    with _bar(measurement.context, reference) as bar:
        share_scores(config, measurement, reference, bar, ranks)


@dataclass
class DrawSamples:
    """Samples that are drawn from the network of an evaluation.

    Chunks are cached, so a killed evaluation goes on with the next one, and memory holds bytes and
    features alone.

    Attributes:
        context: the evaluation; its seed decides initial images and noise.
        cache: where finished chunks are kept.
        speed: how fast each sampler draws.
    """

    context: EvaluationContext
    cache: ChunkCache
    speed: Speed = field(default_factory=Speed)
    pictures: ClassVar[bool] = True

    def obtain(self, sampler: Sampler, bar: Bar) -> SampleSet:
        """Draw all samples of a sampler."""
        bar.advance(0, sampler.title)

        def read(number: int) -> dict[str, Tensor]:
            values = self.cache.tensors(sample_key(sampler.title, number))
            if values is None:
                raise CembenchError(f"{self.cache.folder}: samples are gone; evaluate again")
            return values

        return SampleSet.of(self._chunks(sampler, bar), read)

    def draw_share(self, world: World) -> None:
        """Draw the chunks of this process and read their features, into the cache.

        A sampler that fails is left to the first process, which meets the same failure.
        """
        reference = self.context.reference
        if reference is None:
            return
        with _bar(self.context, reference) as bar:
            for sampler in self.context.protocol.samples.samplers:
                with suppress(SamplingError):
                    for samples in self._chunks(sampler, bar, world):
                        reference.reader.read(MemoryStore(samples.images))
                        reference.reader.read(MemoryStore(samples.starts))

    @cached_property
    def _surrogate(self) -> nn.Module:
        example = self.context.images.data.pixels(slice(EXAMPLES))
        return self.context.protocol.engine.prepare(self.context.model, example)

    def _chunks(self, sampler: Sampler, bar: Bar, world: World = ALONE) -> Iterator[Samples]:
        """Yield chunks with images and starts as bytes; each process has its share of them."""
        device = self.context.images.device
        chunks = list(enumerate(chunk_labels(self.context, sampler)))
        for number, y in world.deal(f"samples {sampler.title}", chunks):
            draw = partial(self._chunk, sampler, y.to(device), number)
            values = self.cache.obtain(sample_key(sampler.title, number), draw)
            bar.advance(len(y))
            yield Samples(**values)

    def _chunk(self, sampler: Sampler, y: Tensor, number: int) -> dict[str, Tensor]:
        context = self.context
        seed, trace, visit = chunk_seed(context, number), None, None
        if number == 0 and isinstance(sampler, EnergySampler):
            trace = Trace(sampler)
            visit = trace.follow(intended_labels(sampler, y, context.images, seed))
        surrogate = self._surrogate
        begun = time.monotonic()
        with stage("drawing samples"):
            drawn = draw(context.model, sampler, y, context.images, seed, visit, surrogate).cpu()
        self.speed.add(sampler.title, len(y), time.monotonic() - begun)
        if trace is not None:
            with stage("figures"):
                strip = RunLayout.trajectory(context.path, sampler.title)
                write_bytes(strip, trace.render(context.metadata.classes, strip.suffix))
        return vars(drawn) | {"images": to_uint8(drawn.images), "starts": to_uint8(drawn.starts)}


@dataclass
class SavedSamples:
    """Samples that an evaluation saved.

    Attributes:
        context: the evaluation.
        record: the file of the record beside which they lie.
        recorded: what the record says of its samples.
        checks: how many samples have the logits that were saved with them.
        speed: of drawing; nothing is drawn.
    """

    context: EvaluationContext
    record: Path
    recorded: Generation | None
    checks: list[Comparison] = field(default_factory=list)
    speed: Speed = field(default_factory=Speed)
    pictures: ClassVar[bool] = False

    def obtain(self, sampler: Sampler, bar: Bar) -> SampleSet:
        """Read all samples of a sampler, and compare their logits with the network's own."""
        context = self.context
        device = context.images.device
        labels = [
            intended_labels(sampler, y.to(device), context.images, chunk_seed(context, i)).cpu()
            for i, y in enumerate(chunk_labels(context, sampler))
        ]

        def chunk(number: int) -> Samples:
            return saved_samples(self.record, sampler.title, number, labels[number])

        try:
            saved = SampleSet.of(map(chunk, range(len(labels))), lambda number: vars(chunk(number)))
        except CembenchError:
            known = None if self.recorded is None else self.recorded.samplers.get(sampler.title)
            if known is None or known.error is None:
                raise
            raise SamplingError(known.error) from None
        self.checks.extend(self._read(sampler, saved))
        return saved

    @torch.no_grad()
    def _read(self, sampler: Sampler, saved: SampleSet) -> list[Comparison]:
        """Count the samples whose bytes the network classifies as their saved logits say.

        The saved logits are those before rounding. Where samples may leave [0, 1], or were drawn
        with batch statistics, they say nothing of the bytes.
        """
        differ = getattr(sampler, "mode", "eval") == "train" or sampler.init == "buffer"
        if differ or saved.logits.shape[1] == 0 or not getattr(sampler, "box", True):
            return []
        context, near = self.context, torch.ones(len(saved.labels)).bool()
        for images, logits in ((saved.images, saved.logits), (saved.starts, saved.start_logits)):
            rows = torch.arange(len(images)).split(context.protocol.batch_size)
            parts = images.batches(rows)
            out = [context.model(p.to(context.images.device).float() / 255).cpu() for p in parts]
            apart = (torch.cat(out) - logits).abs().amax(1)
            near &= apart <= NEAR * logits.abs().amax(1).clamp_min(1)
        title = f"samples {sampler.title}: read as their logits say"
        return [Comparison(title, len(near), int(near.sum()))]


def chunk_seed(context: EvaluationContext, number: int) -> int:
    """Return the seed of a chunk of samples."""
    return derive(context.protocol.seed, "samples", number)


def chunk_labels(context: EvaluationContext, sampler: Sampler) -> Iterator[Tensor]:
    """Yield the intended classes of each chunk of samples, as `chunks` does."""
    assert context.reference is not None
    count, size = len(context.reference.split), context.protocol.samples.batch_size
    return chunks(sampler, count, len(context.metadata.classes), size)


def _bar(context: EvaluationContext, reference: ReferenceSet) -> Bar:
    work = len(reference.split) * len(context.protocol.samples.samplers)
    return Bar(f"samples {context.header.dataset}", work)


def _cautions(found: Generation, reference: ReferenceSet, config: SamplesConfig) -> list[str]:
    extractor, count = config.extractor, found.count
    classes, features = len(reference.split.classes), reference.real.features
    dimension, scored = features.pool.shape[1], features.logits is not None
    doubts = {
        f"FD-{extractor.title} is biased: {count} images for {dimension} features; "
        "compare it with the floor alone, and lead with KID": count < 2 * dimension,
        f"IS-{extractor.title} on {count} images is biased downward, without splits": scored
        and count < SPLIT_IMAGES,
        "no real-against-real floor: the other split has too few images": found.floor is None,
        f"samples: the reference has only {count} of {config.count} images": reference.short,
        f"samples: {count} images do not reach all {classes} classes": count < classes,
    }
    texts = [text for text, doubtful in doubts.items() if doubtful]
    return [*texts, *extractor.cautions(found.extractor_sha256)]

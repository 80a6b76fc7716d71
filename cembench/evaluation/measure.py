"""Measuring: the one way from a network to the figures of a record.

`evaluate` gives it attacks that run and samples that are drawn, `verify` those that were saved.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar
from typing import Protocol as Interface

import pandas as pd
import torch
from torch import Tensor, nn

from cembench.attacks import Target
from cembench.data.split import Split
from cembench.energy.ascent import to_bytes
from cembench.energy.threat import Threat
from cembench.evaluation.cache import ChunkCache
from cembench.evaluation.chunk import AttackSource, Chunk, Columns
from cembench.evaluation.protocol import Protocol
from cembench.evaluation.sections import SECTIONS
from cembench.evaluation.sections.threats import AttackedThreat, titled
from cembench.evaluation.target import target_of
from cembench.evaluation.throughput import Speed, forward_flops
from cembench.models.engine import EXAMPLES
from cembench.util.frozen import copied, exact, frozen
from cembench.util.processes.distributed import ALONE, World
from cembench.util.progress import Bar
from cembench.util.rng import derive, isolated_rng
from cembench.util.stages import stage

if TYPE_CHECKING:
    from cembench.evaluation.context import EvaluationContext
    from cembench.evaluation.sample_set import SampleSet
    from cembench.samplers import Sampler


class SampleSource(Interface):
    """Samples of a network: drawn, or read from what was saved.

    Attributes:
        pictures: whether pictures of them are written beside the record.
        speed: how fast each sampler draws.
    """

    pictures: ClassVar[bool]
    speed: Speed

    def obtain(self, sampler: Sampler, bar: Bar) -> SampleSet:
        """Return all samples of a sampler.

        Raises:
            SamplingError: when there are none.
        """


@dataclass
class Measurement:
    """What was measured so far.

    Attributes:
        context: the evaluation.
        attacks: the attacks.
        samples: the samples.
        table: the table of verdicts, one row per attacked image; empty for an encoder.
        seconds: wall time of each attack, by title.
        results: of sections, by their key in records.
        warnings: what to be careful about.
        not_applicable: what was left out, most often since the network has no gradient.
        unused: a copy of the network made before anything was measured, where it can be copied.
        threat: another threat model than that of the record, if figures under it are wanted.
    """

    context: EvaluationContext
    attacks: AttackSource
    samples: SampleSource
    table: pd.DataFrame
    seconds: dict[str, float]
    results: dict[str, Any] = field(default_factory=dict)
    warnings: Counter[str] = field(default_factory=Counter)
    not_applicable: list[str] = field(default_factory=list)
    unused: nn.Module | None = None
    threat: AttackedThreat | None = None

    @classmethod
    def begun(
        cls, context: EvaluationContext, attacks: AttackSource, samples: SampleSource
    ) -> Measurement:
        """Return the measurement of a network that was attacked, before any section."""
        table, seconds, unused = pd.DataFrame(), dict[str, float](), copied(context.model)
        if context.header.kind == "classifier":
            table, seconds = table_of(context, attacks)
        return cls(context, attacks, samples, table, seconds, unused=unused)

    @property
    def protocol(self) -> Protocol:
        """What is measured, under this threat model alone if there are several."""
        protocol = self.context.protocol
        return protocol if self.threat is None else protocol.under(self.threat)

    def title(self, name: str) -> str:
        """Return what an attack is called in columns."""
        return titled("" if self.threat is None else self.threat.slug, name)

    def under(self, threat: AttackedThreat) -> Measurement:
        """Return the same measurement under another threat model of the protocol."""
        return replace(self, threat=threat)

    @cached_property
    def target(self) -> Target:
        """The frozen network as it is, whatever the engine, and the threat model."""
        context = self.context
        classes = len(context.split.classes)
        threat = context.header.threat if self.threat is None else self.threat.model
        example = context.split.pixels(slice(EXAMPLES))
        return target_of(context.model, classes, context.protocol, threat, example)


def measure(
    context: EvaluationContext, attacks: AttackSource, samples: SampleSource
) -> Measurement:
    """Measure all sections of a protocol.

    The modes, buffers and gradients of the network and the global generators are left as they were.

    Raises:
        ModelError: when the network returns the wrong number of logits or any that are not finite.
        CembenchError: when an attack cannot be run, or what was saved is missing or damaged.
    """
    classifier = context.header.kind == "classifier"
    with frozen(context.model), exact():
        found = Measurement.begun(context, attacks, samples)
        found.not_applicable += context.header.not_applicable
        for section in SECTIONS:
            config = section.config(context.protocol)
            if config or (section.always and classifier):
                with stage(section.key):
                    found.results[section.result_key] = section.measure(config, found)
        if classifier and found.target.no_gradient:
            _say_no_gradient(found)
        found.results["sample_images_per_second"] = samples.speed.rates
        found.results["flops"] = forward_flops(found.unused, context.split.pixels(slice(1)))
    return found


def _say_no_gradient(found: Measurement) -> None:
    """Say in the record that the network has no gradient, and what was left out for that."""
    reason, left_out = found.target.no_gradient, found.not_applicable
    found.results |= {"no_gradient": reason, "not_applicable": left_out}
    listed = ", ".join(left_out) or "nothing"
    found.warnings.update(
        [f"the network has no gradient, black-box attacks only: {reason}; not applicable: {listed}"]
    )


def table_of(
    context: EvaluationContext, attacks: AttackSource, world: World = ALONE
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Return what `verdict_table` does, for a context."""
    threat, cache = context.header.threat, context.cache
    images = context.split, context.rows
    return verdict_table(context.model, *images, context.protocol, threat, attacks, cache, world)


def verdict_table(
    model: nn.Module,
    split: Split,
    rows: Tensor,
    protocol: Protocol,
    threat: Threat,
    attacks: AttackSource,
    cache: ChunkCache | None = None,
    world: World = ALONE,
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Attack every image of a split with every attack of a protocol.

    Chunks of `protocol.batch_size` images are independent: what becomes of an image depends on its
    chunk alone. The modes, buffers and gradients of the network and the global generators are left
    as they were.

    Args:
        model: images in [0, 1] to logits, on the device of the split.
        split: the images.
        rows: their numbers in the whole split.
        protocol: attacks, batch size, seed, and sections that add columns.
        threat: the ball that perturbations must stay in.
        attacks: the attacks: run, or read from what was saved.
        cache: where finished chunks are kept, and found after a kill.
        world: of several processes, each attacks one chunk after the other that is left.

    Returns:
        The table with the columns `index, label, clean_pred, clean_8bit_pred` and those of the
        sections, one row per image; and the wall time of each attack and its stages, by title and
        `TITLE/STAGE`.

    Raises:
        ModelError: when the network returns the wrong number of logits or any that are not finite.
        CembenchError: when an attack cannot be run.
    """
    tables: dict[int, pd.DataFrame | None] = {}
    seconds = dict.fromkeys((run.title for run in protocol.runs), 0.0)
    work = len(split) * max(1, len(seconds))
    with Bar(f"{protocol.name} {threat}", work) as bar, frozen(model), exact():
        to_say = f"{len(split)} images under {', '.join(seconds)}" if seconds else ""
        example = split.pixels(slice(EXAMPLES))
        classes, engine = len(split.classes), protocol.engine
        target = target_of(model, classes, protocol, threat, example, engine)
        for start in world.deal("attacks", range(0, len(split), protocol.batch_size)):
            numbers = torch.arange(start, min(start + protocol.batch_size, len(split)))
            cached = None if cache is None else cache.get(start)
            if cached is None:
                if to_say and cache is not None:  # nothing is run where there is none
                    bar.report(to_say)
                    to_say = ""
                part = split.take(numbers), rows[numbers]
                cached = _table(Chunk(*part, start, target, protocol, attacks, cache, bar))
                if cache is not None:
                    cache.put(start, *cached)
            else:
                bar.advance(len(numbers) * len(protocol.runs))
            # Small things kept from each chunk would lie between the large ones that are freed,
            # where the heap then finds no room for those of the next chunk, and grows.
            tables[start] = cached[0] if cache is None else None
            for key, value in cached[1].items():
                seconds[key] = seconds.get(key, 0.0) + value
    return _joined(tables, cache), seconds


def _joined(tables: dict[int, pd.DataFrame | None], cache: ChunkCache | None) -> pd.DataFrame:
    """Return the tables of all chunks as one; what is None is in the cache.

    Raises:
        CembenchError: when it is gone.
    """
    found = [cache.whole(s) if t is None and cache else t for s, t in tables.items()]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def _table(chunk: Chunk) -> tuple[pd.DataFrame, dict[str, float]]:
    with isolated_rng(derive(chunk.protocol.seed, "chunk", chunk.start)):
        chunk.columns |= _clean(chunk)
        chunk.target.plain.require_finite("on clean images")
        for section in SECTIONS:
            config = section.config(chunk.protocol)
            if config and section.chunk_columns is not None:
                with stage(section.key):
                    chunk.columns |= section.chunk_columns(config, chunk)
    columns = {
        key: value if isinstance(value, list) else value.cpu().numpy()
        for key, value in chunk.columns.items()
    }
    return pd.DataFrame(columns), chunk.seconds


@torch.no_grad()
def _clean(chunk: Chunk) -> Columns:
    x, verifier = chunk.split.pixels(), chunk.target.verifier
    rounded = to_bytes(x, x, chunk.target.threat.ball)
    found = verifier(x).argmax(1)
    same = chunk.target.repeatable and torch.equal(rounded, x)
    return {
        "index": chunk.rows,
        "label": chunk.split.labels,
        "clean_pred": found,
        "clean_8bit_pred": found if same else verifier(rounded).argmax(1),
    }

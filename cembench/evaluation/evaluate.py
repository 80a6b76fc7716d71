"""Evaluation of a checkpoint under a protocol, which writes a record beside it."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from cembench.evaluation import artifacts
from cembench.evaluation.cache import ChunkCache, clear_abandoned
from cembench.evaluation.context import EvaluationContext, prepare, unusual_radii
from cembench.evaluation.measure import Measurement, measure, table_of
from cembench.evaluation.measures.robustness import RunAttacks
from cembench.evaluation.measures.samples import DrawSamples
from cembench.evaluation.protocol import Protocol
from cembench.evaluation.record import Record
from cembench.evaluation.record.files import save_record
from cembench.evaluation.record.header import identity, reusable
from cembench.evaluation.sections import SECTIONS
from cembench.evaluation.throughput import Speed
from cembench.models.source import ModelSource
from cembench.util.errors import CembenchError, ModelError, one_line
from cembench.util.files import digest
from cembench.util.files.layout import RunLayout
from cembench.util.files.locks import locked
from cembench.util.files.temporary import clear_leftovers
from cembench.util.frozen import exact, frozen
from cembench.util.processes.distributed import World, world
from cembench.util.shared import sharing

log = logging.getLogger("cembench")


@sharing()
def evaluate(
    source: ModelSource | Path,
    protocol: Protocol,
    *,
    device: str | torch.device = "cpu",
    data_root: str | None = None,
    inception_weights: Path | None = None,
    folder: Path | None = None,
    save_samples: bool = False,
    save_adversarial: bool = False,
    reuse: bool = False,
    on_record: Callable[[Path, Record], object] | None = None,
) -> tuple[Record, Path]:
    """Evaluate a checkpoint and return its record and where it was written.

    A killed evaluation goes on with the stage of the attack, or the chunk of samples, it was at.

    Args:
        source: a checkpoint, the run folder that holds one, or a network in memory.
        protocol: what to measure.
        device: where to compute.
        data_root: the folder of the data, if it is not the one of training.
        inception_weights: weights for the extractors inception and dinov2.
        folder: where `eval` and `samples` go, if not beside the checkpoint.
        save_samples: keep all samples, with initial images and labels, beside the pictures of them.
        save_adversarial: keep the adversarial images, so that `verify` can check the record.
        reuse: return the record that is there when checkpoint, protocol, data and software are
            those it was made from.
        on_record: called with path and record once they are written, in the first process.

    Raises:
        CembenchError: when checkpoint or data cannot be used, or nothing can be written. A
            network that breaks its contract gives a record with `error` and no figures instead.
    """
    ranks = world()
    context = ranks.on_all_ranks(
        lambda: prepare(
            ModelSource.at(source) if isinstance(source, Path) else source,
            protocol,
            torch.device(device),
            data_root=data_root,
            inception_weights=inception_weights,
            folder=folder,
        )
    )
    if save_samples and not context.protocol.makes_images:
        raise CembenchError(f"--save-samples: protocol {context.protocol.name} draws no samples")
    ranks.assert_same(
        protocol=context.header.protocol_digest,
        checkpoint=context.header.checkpoint_sha256[:12],
        code=context.header.environment["source"],
        images=context.header.fingerprint[:12],
    )
    context = replace(context, header=ranks.on_rank_zero(lambda: context.header))
    in_memory = context.source.model is not None
    old = reusable(context.path, context.header) if reuse and not in_memory else None
    if (old := ranks.on_rank_zero(lambda: old)) is not None:
        ranks.on_rank_zero(lambda: clear_abandoned(context.path))
        log.info("%s: reused, made from the same checkpoint and protocol", context.path)
        return old, context.path
    ranks.on_all_ranks(lambda: context.reference)  # too few images are found before any attack
    with ExitStack() as stack:
        ranks.on_rank_zero(lambda: _hold(stack, context.path))
        ranks.require_shared_filesystem(context.path.parent)
        cache = ChunkCache(context.path, digest(identity(context.header)))
        if in_memory:  # nothing tells whether it is the network of a killed evaluation
            ranks.on_rank_zero(cache.restart)
        evaluation = _Evaluation(replace(context, cache=cache), cache)
        with evaluation.reading_together(ranks):
            warnings = evaluation.compute_shares(ranks)

            def finish() -> Record:
                record = evaluation.finish(warnings, save_samples, save_adversarial)
                if on_record is not None:
                    on_record(context.path, record)
                return record

            record = ranks.on_rank_zero(finish)
    ranks.on_rank_zero(lambda: clear_abandoned(context.path))
    return record, context.path


def _hold(stack: ExitStack, path: Path) -> None:
    stack.enter_context(locked(RunLayout.record_lock(path), str(path)))
    clear_leftovers(path.parent)


class _Evaluation:
    """An evaluation that holds the lock of its record."""

    def __init__(self, context: EvaluationContext, cache: ChunkCache) -> None:
        self.context, self.cache = context, cache
        self.attacks = RunAttacks()
        self.samples = DrawSamples(context, cache)
        self.started = time.monotonic()

    def reading_together(self, ranks: World) -> AbstractContextManager[None]:
        """Let several processes keep features in the cache, for each other."""
        reader = self.context.reader
        return nullcontext() if reader is None or ranks.size == 1 else reader.keeping(self.cache)

    def compute_shares(self, ranks: World) -> Counter[str]:
        """Compute this process's shares of the work; return what all processes were warned of.

        The first process then finds the results in the cache, as after a kill. A single process
        reads the features of real images alone, since that may fail.
        """
        reference = self.context.reference
        if reference is not None:
            ranks.on_all_ranks(lambda: reference.read(ranks))
        if ranks.size == 1:
            return Counter()
        if len(self.context.split) < ranks.size:
            raise CembenchError.on_every_rank(
                f"{ranks.size} processes for {len(self.context.split)} test images: start fewer"
            )
        found = Counter[str]()
        for share in (self._chunks, self._sections):
            parts = ranks.gather(ranks.on_all_ranks(partial(self._warned, share, ranks)))
            found.update(sum((part for part, _ in parts), Counter()))
            if not all(whole for _, whole in parts):  # the first process says what is wrong
                break
        self.samples.speed.done = _summed(ranks.gather(self.samples.speed.done))
        return found

    def _warned(self, share: Callable[[World], None], ranks: World) -> tuple[Counter[str], bool]:
        """Compute a share; return what was warned of, and whether the network kept its contract."""
        whole = False
        with collected_warnings() as warnings, suppress(ModelError):
            with frozen(self.context.model), exact():
                share(ranks)
            whole = True
        return warnings, whole

    def _chunks(self, ranks: World) -> None:
        """Attack, and draw samples."""
        if self.context.header.kind == "classifier":
            table_of(self.context, self.attacks, ranks)
        self.samples.draw_share(ranks)

    def _sections(self, ranks: World) -> None:
        """Compute what sections can share, once all chunks are there."""
        found = Measurement.begun(self.context, self.attacks, self.samples)
        for section in SECTIONS:
            if config := section.config(self.context.protocol):
                section.share(config, found, ranks)

    def finish(self, before: Counter[str], save_samples: bool, save_adversarial: bool) -> Record:
        """Measure everything and write it; what is in the cache is not computed again."""
        context = self.context
        record, table = self._measured(before)
        record = save_record(context.path, record, table)
        if save_adversarial:
            images, threat = context.split, record.threat
            artifacts.save_adversarial(self.cache, context.protocol, images, threat, context.path)
        if save_samples:
            artifacts.save_samples(self.cache, context.path)
        self.cache.clear()
        return record

    def _measured(self, before: Counter[str]) -> tuple[Record, pd.DataFrame | None]:
        """Return the record, with figures or with what went wrong, and the table of verdicts."""
        values: dict[str, Any] = {}
        table = None
        with collected_warnings() as warnings:
            warnings.update(before)
            warnings.update(_cautions(self.context))
            try:
                values |= self.context.facts()
                found = measure(self.context, self.attacks, self.samples)
                values |= found.results
                warnings.update(found.warnings)
                table = None if self.context.header.kind == "encoder" else found.table
            except ModelError as error:
                values["error"] = one_line(error)
        values["warnings"] = [
            one_line(text) if times == 1 else f"{one_line(text)} ({times} times)"
            for text, times in warnings.items()
        ]
        values["seconds"] = round(time.monotonic() - self.started, 3)
        values["created"] = datetime.now(UTC).isoformat(timespec="seconds")
        return self.context.header.model_copy(update=values), table


def _summed(parts: list[dict[str, tuple[int, float]]]) -> dict[str, tuple[int, float]]:
    """Return images and seconds by sampler, of all processes together."""
    whole = Speed()
    for title, (images, seconds) in (item for part in parts for item in part.items()):
        whole.add(title, images, seconds)
    return whole.done


def _cautions(context: EvaluationContext) -> list[str]:
    """Return what a record warns of radii and images, and of images that were not given."""
    missing = "no training images were given, so there are no samples; give them with train="
    return [
        *unusual_radii(context.protocol, context.header.threat, context.split.shape),
        *context.metadata.data.cautions,
        *[missing] * ("samples" in context.header.not_applicable),
    ]


@contextmanager
def collected_warnings() -> Iterator[Counter[str]]:
    """Count what attacks and cembench warn of instead of printing it."""
    found: Counter[str] = Counter()
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda entry: found.update([entry.getMessage()])  # type: ignore[method-assign,assignment]
    logs = [logging.getLogger(name) for name in ("auto-attack", "cembench")]
    for log in logs:
        log.addHandler(handler)
    try:
        yield found
    finally:
        for log in logs:
            log.removeHandler(handler)

"""Evaluate a checkpoint under a protocol and leave a record beside it."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from cembench.evaluation.artifacts import samples_folder, save_evidence
from cembench.evaluation.cache import Parts
from cembench.evaluation.context import Work, prepare
from cembench.evaluation.curve import points
from cembench.evaluation.density import summarise
from cembench.evaluation.generation import draw_share, drawn, measure
from cembench.evaluation.protocol import Protocol
from cembench.evaluation.record import Record, save_record
from cembench.evaluation.record_header import identity, reusable
from cembench.evaluation.results import count
from cembench.evaluation.robustness import attack_split, target_of
from cembench.evaluation.sanity import sanity_checks
from cembench.models.checkpoint import weights_digest
from cembench.models.classifier import Classifier
from cembench.models.source import ModelSource
from cembench.util.distributed import World, world
from cembench.util.errors import CembenchError, ModelError
from cembench.util.files import clear_leftovers, digest, write_bytes
from cembench.util.frozen import exact, frozen
from cembench.util.locks import locked


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
) -> tuple[Record, Path]:
    """Evaluate a checkpoint and return its record and where it was written.

    One that was killed goes on with the stage of the attack, or the chunk of samples, it was at.

    Args:
        source: a checkpoint, the run folder that holds one, or a network in memory.
        protocol: what to do.
        device: where to compute.
        data_root: where the data lies, if not where it lay in training.
        inception_weights: a file of weights for the extractor inception.
        folder: where `eval` and `samples` go, if not beside the checkpoint.
        save_adversarial: keep what broke each image, so that `recount` can check the record.
        save_samples: keep all samples, with starts and labels, beside the pictures of them.
        reuse: return the record that is there when checkpoint, protocol, data and software are
            those it was made from.

    Raises:
        CembenchError: when checkpoint or data cannot be used, or nothing can be written. A
            network that breaks its contract gives a record with `error` and no figures instead.
    """
    ranks = world()
    work, path = ranks.on_all_ranks(
        lambda: prepare(
            source, protocol, torch.device(device), data_root, inception_weights, folder
        )
    )
    if save_samples and work.protocol.samples is None:
        raise CembenchError(f"--save-samples: protocol {protocol.name} draws no samples")
    ranks.assert_same(
        protocol=work.record.protocol_digest,
        checkpoint=work.record.checkpoint_sha256[:12],
        code=work.record.environment["source"],
    )
    work = replace(work, record=ranks.on_rank_zero(lambda: work.record))
    old = reusable(path, work.record) if reuse and work.source.model is None else None
    if (old := ranks.on_rank_zero(lambda: old)) is not None:
        return old, path
    ranks.on_all_ranks(lambda: work.comparison)  # before anything is attacked
    with ExitStack() as stack:
        ranks.on_rank_zero(lambda: _hold(stack, path))
        ranks.require_shared_filesystem(path.parent)
        parts = Parts(path.parent, digest(identity(work.record)))
        if work.source.model is not None:  # nothing tells whether it is what was killed
            ranks.on_rank_zero(parts.restart)
        started = time.monotonic()
        warnings = _share(work, parts, samples_folder(path), ranks)

        def finish() -> Record:
            record, table = _measured(work, parts, samples_folder(path), warnings, started)
            record = save_record(path, record, table)
            if record.curve:
                write_bytes(path.with_suffix(".curve.png"), _curve(record))
            if save_adversarial:
                save_evidence(parts, work.protocol, work.split, record.threat.ball, path)
            if save_samples:
                parts.move_tensors("samples", samples_folder(path))
            parts.clear()
            return record

        return ranks.on_rank_zero(finish), path


def _hold(stack: ExitStack, path: Path) -> None:
    stack.enter_context(locked(path.with_name(f".{path.name}.lock"), str(path)))
    for own in (path, path.with_suffix(".parquet")):
        clear_leftovers(own)


def _curve(record: Record) -> bytes:
    from cembench.reporting.plots.curves import radii
    from cembench.reporting.plots.style import render

    title = f"{record.run}, {record.dataset}, {record.threat.norm}"
    return render(radii({record.run: record.curve}, record.threat.eps, title), "png")


def _share(work: Work, parts: Parts, pictures: Path, ranks: World) -> Counter[str]:
    """Do this process's share of the attacks and the samples; return what all were warned of.

    The first process then finds the results in `parts`, as if it had done them before a kill.
    """
    if ranks.size == 1:
        return Counter()
    protocol, images = work.protocol, len(work.split)
    if images < ranks.size:
        raise CembenchError.on_every_rank(
            f"{ranks.size} processes for {images} test images: start fewer"
        )

    def do() -> Counter[str]:
        with collected_warnings("auto-attack", "cembench") as warnings, suppress(ModelError):
            model = work.source.load(work.origins.device)
            if work.origins.metadata.kind == "classifier":
                threat = work.record.threat
                attack_split(model, work.split, work.rows, protocol, threat, parts, ranks)
            if work.comparison is not None:
                with frozen(model), exact():
                    draw_share(
                        model, work.origins, protocol, work.comparison, parts, pictures, ranks
                    )
        return warnings

    return sum(ranks.gather(ranks.on_all_ranks(do)), Counter())


def _measured(
    work: Work, parts: Parts, pictures: Path, before: Counter[str], started: float
) -> tuple[Record, pd.DataFrame | None]:
    """Return the record with its figures, and the table of verdicts; or with what went wrong."""
    ending: dict[str, Any] = {}
    table = None
    with collected_warnings("auto-attack", "cembench") as warnings:
        warnings.update(before)
        try:
            model = work.source.load(work.origins.device)
            ending["parameters"] = sum(p.numel() for p in model.parameters())
            ending["weights_sha256"] = weights_digest(model.state_dict())
            found, table = _figures(work, parts, model, pictures, warnings)
            ending |= found
        except ModelError as error:
            ending["error"] = str(error)
    ending["warnings"] = [_repeated(text, times) for text, times in warnings.items()]
    ending["seconds"] = round(time.monotonic() - started, 3)
    ending["created"] = datetime.now(UTC).isoformat(timespec="seconds")
    return work.record.model_copy(update=ending), table


def _figures(
    work: Work, parts: Parts, model: Classifier, pictures: Path, warnings: Counter[str]
) -> tuple[dict[str, Any], pd.DataFrame | None]:
    protocol, metadata = work.protocol, work.origins.metadata
    threat = work.record.threat
    if metadata.kind == "encoder":
        return _of_encoder(work, parts, model, pictures, warnings), None
    verdicts = attack_split(model, work.split, work.rows, protocol, threat, parts)
    titles = [attack.title for attack in protocol.attacks]
    found: dict[str, Any] = {"figures": count(verdicts.table, titles, verdicts.seconds)}
    generation = density = None
    with frozen(model), exact():
        target = target_of(model, len(metadata.classes), protocol, threat)
        if protocol.sanity is not None:
            found["sanity"] = sanity_checks(target, work.split, protocol.sanity)
        if work.comparison is not None:
            generation, cautions = measure(
                model, work.origins, protocol, work.comparison, parts, pictures
            )
            warnings.update(cautions)
        if protocol.density is not None:
            device = work.origins.device
            density = summarise(verdicts.table, target.model, metadata.shape, protocol, device)
            if len(metadata.classes) == 2:
                warnings.update(["with two classes TA's one target is PGD's: they coincide"])
    if protocol.curve is not None:
        found["curve"] = points(verdicts.table, protocol.curve.radii(threat.eps))
    if generation is not None and density is not None:
        density = density.model_copy(update={"energies": density.energies | drawn(generation)})
    return found | {"generation": generation, "density": density}, verdicts.table


def _of_encoder(
    work: Work, parts: Parts, model: Classifier, pictures: Path, warnings: Counter[str]
) -> dict[str, Any]:
    """Return the figures of a network without logits: those of its samples."""
    assert work.comparison is not None
    with frozen(model), exact():
        generation, cautions = measure(
            model, work.origins, work.protocol, work.comparison, parts, pictures
        )
    warnings.update(cautions)
    return {"generation": generation}


def _repeated(text: str, times: int) -> str:
    return text if times == 1 else f"{text} ({times} times)"


@contextmanager
def collected_warnings(*loggers: str) -> Iterator[Counter[str]]:
    """Count what loggers warn of instead of printing it."""
    found: Counter[str] = Counter()
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda entry: found.update([entry.getMessage()])  # type: ignore[method-assign,assignment]
    logs = [logging.getLogger(name) for name in loggers]
    for log in logs:
        log.addHandler(handler)
    try:
        yield found
    finally:
        for log in logs:
            log.removeHandler(handler)

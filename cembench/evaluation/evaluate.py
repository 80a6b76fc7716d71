"""Evaluate a checkpoint under a protocol and leave a record beside it."""

from __future__ import annotations

import logging
import platform
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from cembench.checkpoint import Passport, checkpoint_file, load_checkpoint, read_passport
from cembench.data.split import Split, subset
from cembench.errors import CembenchError, ModelError
from cembench.evaluation.parts import Parts
from cembench.evaluation.protocol import Protocol
from cembench.evaluation.record import Record, count, load_record, save_record
from cembench.evaluation.robustness import attack_split
from cembench.files import digest, sha256
from cembench.threat import Threat

IDENTITY = ("checkpoint_sha256", "protocol_digest", "fingerprint", "threat", "environment")
PACKAGES = ("cembench", "torch", "torchvision", "torchattacks", "pyautoattack", "numpy")


def evaluate(
    checkpoint: Path,
    protocol: Protocol,
    *,
    device: str | torch.device = "cpu",
    data_root: str | None = None,
    reuse: bool = False,
) -> tuple[Record, Path]:
    """Evaluate a checkpoint and return its record and where it was written.

    An evaluation that was killed goes on with the chunk it was at.

    Args:
        checkpoint: a `model.safetensors`, or the run folder that holds one.
        protocol: what to do.
        device: where to compute.
        data_root: where the data lies, if not where it lay in training.
        reuse: return the record that is there when checkpoint, protocol, data and software are
            those it was made from.

    Raises:
        CembenchError: when checkpoint or data cannot be used, or nothing can be written. A
            network that breaks its contract gives a record with `error` and no figures instead.
    """
    file = checkpoint_file(checkpoint)
    checksum = sha256(file)
    passport = read_passport(file)
    try:
        split, rows = subset(_data(passport, data_root).load("test"), protocol.limit)
        passport.check(split)
    except CembenchError as error:
        raise CembenchError(f"{file}: {error}") from error
    threat = protocol.threat.over(passport.threat)
    path = _record_path(file, protocol)
    record = _blank(file, checksum, passport, protocol, threat, split, torch.device(device))
    if reuse and (old := _reusable(path, record)) is not None:
        return old, path
    started = time.monotonic()
    parts = Parts(path.parent, digest([str(getattr(record, key)) for key in IDENTITY]))
    verdicts = None
    ending: dict[str, Any] = {}
    with collected_warnings("auto-attack") as warnings:
        try:
            model, _ = load_checkpoint(file, device)
            ending["parameters"] = sum(p.numel() for p in model.parameters())
            verdicts = attack_split(
                model, split.to(torch.device(device)), rows, protocol, threat, parts
            )
            titles = [attack.title for attack in protocol.attacks]
            ending["figures"] = count(verdicts.table, titles, verdicts.seconds)
        except ModelError as error:
            ending["error"] = str(error)
    ending["warnings"] = [f"{text} ({times} times)" for text, times in warnings.items()]
    ending["seconds"] = round(time.monotonic() - started, 3)
    ending["created"] = datetime.now(UTC).isoformat(timespec="seconds")
    record = record.model_copy(update=ending)
    save_record(path, record, None if verdicts is None else verdicts.table)
    parts.clear()
    return record, path


def _data(passport: Passport, root: str | None) -> Any:
    if root is None:
        return passport.data
    if "root" not in type(passport.data).model_fields:
        raise CembenchError(f"data set '{passport.data.name}' has no root to replace")
    return passport.data.model_copy(update={"root": root})


def _blank(
    file: Path,
    checksum: str,
    passport: Passport,
    protocol: Protocol,
    threat: Threat,
    split: Split,
    device: torch.device,
) -> Record:
    named = file.name == "model.safetensors"
    return Record(
        run=file.resolve().parent.name if named else file.stem,
        method=passport.method,
        dataset=passport.data.title,
        model=passport.model.name,
        seed=passport.seed,
        threat=threat,
        protocol=protocol.dump(),
        protocol_digest=protocol.digest,
        data=passport.data.dump(),
        fingerprint=split.fingerprint,
        checkpoint_sha256=checksum,
        epoch=passport.epoch,
        finished=passport.finished,
        gradients=passport.gradients,
        divergences=passport.divergences,
        train_seconds=_train_seconds(file.parent / "history.csv"),
        environment=environment(device),
    )


def _record_path(file: Path, protocol: Protocol) -> Path:
    prefix = "" if file.name == "model.safetensors" else f"{file.stem}."
    return file.parent / "eval" / f"{prefix}{protocol.name}.json"


def _reusable(path: Path, new: Record) -> Record | None:
    """Return the record that is there if it says what a new one would."""
    try:
        old = load_record(path)
    except CembenchError:
        return None
    same = old.error is None and all(getattr(old, key) == getattr(new, key) for key in IDENTITY)
    return old if same and path.with_suffix(".parquet").exists() else None


def _train_seconds(history: Path) -> float | None:
    if not history.exists():
        return None
    try:
        return round(float(pd.read_csv(history)["seconds"].sum()), 3)
    except (KeyError, ValueError):
        return None


def environment(device: torch.device) -> dict[str, Any]:
    """Return what figures can depend on besides the data and the weights."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    versions = {package: version(package) for package in PACKAGES}
    return {
        "python": platform.python_version(),
        **versions,
        "device": f"{device.type} {name}",
        "threads": torch.get_num_threads(),
        "precision": "fp32",
    }


@contextmanager
def collected_warnings(logger: str) -> Iterator[Counter[str]]:
    """Count what a logger warns of instead of printing it."""
    found: Counter[str] = Counter()
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda entry: found.update([entry.getMessage()])  # type: ignore[method-assign,assignment]
    log = logging.getLogger(logger)
    log.addHandler(handler)
    try:
        yield found
    finally:
        log.removeHandler(handler)

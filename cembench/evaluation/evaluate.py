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
from cembench.evaluation.comparison import Comparison
from cembench.evaluation.density import summarise
from cembench.evaluation.features import FeatureReader
from cembench.evaluation.figures import count
from cembench.evaluation.generation import measure
from cembench.evaluation.parts import Parts
from cembench.evaluation.protocol import Protocol
from cembench.evaluation.record import Record, load_record, save_record
from cembench.evaluation.robustness import attack_split
from cembench.files import digest, sha256
from cembench.guard import exact, frozen
from cembench.sampling import Origins

IDENTITY = ("checkpoint_sha256", "protocol_digest", "fingerprint", "threat", "environment")
PACKAGES = (
    *("cembench", "torch", "torchvision", "torchattacks", "pyautoattack"),
    *("torch-fidelity", "scikit-learn", "numpy"),
)


def evaluate(
    checkpoint: Path,
    protocol: Protocol,
    *,
    device: str | torch.device = "cpu",
    data_root: str | None = None,
    inception_weights: Path | None = None,
    save_samples: bool = False,
    reuse: bool = False,
) -> tuple[Record, Path]:
    """Evaluate a checkpoint and return its record and where it was written.

    An evaluation that was killed goes on with the chunk it was at.

    Args:
        checkpoint: a `model.safetensors`, or the run folder that holds one.
        protocol: what to do.
        device: where to compute.
        data_root: where the data lies, if not where it lay in training.
        inception_weights: a file of weights for the extractor inception.
        save_samples: keep all samples, with starts and labels, beside the pictures of them.
        reuse: return the record that is there when checkpoint, protocol, data and software are
            those it was made from.

    Raises:
        CembenchError: when checkpoint or data cannot be used, or nothing can be written. A
            network that breaks its contract gives a record with `error` and no figures instead.
    """
    file = checkpoint_file(checkpoint)
    checksum = sha256(file)
    passport = _moved(read_passport(file), data_root)
    device = torch.device(device)
    reader = None
    if protocol.samples is not None:
        reader = FeatureReader(protocol.samples.extractor, device, inception_weights)
    elif inception_weights is not None:
        raise CembenchError(f"--inception-weights: protocol {protocol.name} draws no samples")
    try:
        whole = _images(passport, protocol.split)
        passport.check(whole)
    except CembenchError as error:
        raise CembenchError(f"{file}: {error}") from error
    split, rows = subset(whole, protocol.limit)
    path = _record_path(file, protocol)
    record = _blank(file, checksum, passport, protocol, split, device)
    if reuse and (old := _reusable(path, record)) is not None:
        return old, path
    started = time.monotonic()
    origins = Origins(file.parent, passport, device)
    comparison = None
    if protocol.samples is not None and reader is not None:
        comparison = Comparison(protocol.samples, reader, whole, origins.data)
    parts = Parts(path.parent, digest([str(getattr(record, key)) for key in IDENTITY]))
    ending: dict[str, Any] = {}
    table = None
    with collected_warnings("auto-attack") as warnings:
        try:
            model, _ = load_checkpoint(file, device)
            ending["parameters"] = sum(p.numel() for p in model.parameters())
            verdicts = attack_split(model, split.to(device), rows, protocol, record.threat, parts)
            table = verdicts.table
            titles = [attack.title for attack in protocol.attacks]
            ending["figures"] = count(table, titles, verdicts.seconds)
            with frozen(model), exact():
                if comparison is not None:
                    ending["generation"], cautions = measure(
                        model, origins, protocol, comparison, parts, _pictures(path)
                    )
                    warnings.update(cautions)
                if protocol.density is not None:
                    ending["density"] = summarise(table, model, passport.shape, protocol, device)
        except ModelError as error:
            ending["error"] = str(error)
            ending.update(figures={}, generation=None, density=None)
            table = None
    ending["warnings"] = [_repeated(text, times) for text, times in warnings.items()]
    ending["seconds"] = round(time.monotonic() - started, 3)
    ending["created"] = datetime.now(UTC).isoformat(timespec="seconds")
    record = record.model_copy(update=ending)
    save_record(path, record, table)
    if save_samples:
        parts.move_tensors("samples", _pictures(path))
    parts.clear()
    return record, path


def _moved(passport: Passport, root: str | None) -> Passport:
    if root is None:
        return passport
    if "root" not in type(passport.data).model_fields:
        raise CembenchError(f"data set '{passport.data.name}' has no root to replace")
    data = passport.data.model_copy(update={"root": root})
    return passport.model_copy(update={"data": data})


def _images(passport: Passport, split: str) -> Split:
    return passport.data.load("test") if split == "test" else passport.training_split()[1]


def _pictures(record: Path) -> Path:
    """Return the folder of samples, and the beginning of the names of pictures beside it."""
    return record.parent.parent / "samples" / record.stem


def _repeated(text: str, times: int) -> str:
    return text if times == 1 else f"{text} ({times} times)"


def _blank(
    file: Path,
    checksum: str,
    passport: Passport,
    protocol: Protocol,
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
        recipe=_recipe(passport),
        threat=protocol.threat.over(passport.threat),
        protocol=protocol.dump(),
        protocol_digest=protocol.digest,
        split=protocol.split,
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


def _recipe(passport: Passport) -> str:
    config = {key: value for key, value in passport.config.items() if key != "seed"}
    return digest(config) if config else ""


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

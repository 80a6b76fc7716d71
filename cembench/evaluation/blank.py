"""A record before anything is measured: what it is about, where it lies, whether it holds."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch

from cembench.checkpoint import Passport, beside, own_name, run_name
from cembench.config import recipe_of
from cembench.data.split import Split
from cembench.errors import CembenchError
from cembench.evaluation.features import FeatureReader
from cembench.evaluation.protocol import Protocol
from cembench.evaluation.record import Record, load_record, load_table
from cembench.files import sha256
from cembench.origins import buffer_of
from cembench.provenance import environment

IDENTITY = ("checkpoint_sha256", "protocol_digest", "fingerprint", "threat", "inputs")


def applicable(protocol: Protocol, passport: Passport, file: Path) -> Protocol:
    """Return what a protocol measures of a checkpoint: everything, or an encoder's samples alone.

    Raises:
        CembenchError: when it measures nothing of an encoder.
    """
    part = protocol.measured_of(passport.kind)
    if part is None:
        raise CembenchError(
            f"{file}: an encoder, of which protocol {protocol.name} measures nothing; fit a head "
            "with `cembench probe`, or add the sampler maxent or infonce"
        )
    return part


def inputs_of(file: Path, passport: Passport, reader: FeatureReader | None) -> dict[str, str]:
    """Return checksums of whatever else figures are made of."""
    buffer = buffer_of(file)
    values = {"training": passport.fingerprint}
    if buffer.exists():
        values["buffer"] = sha256(buffer)
    return values | ({} if reader is None else {"extractor": reader.checksum})


def moved(passport: Passport, root: str | None) -> Passport:
    """Return a passport whose data lies under another root.

    Raises:
        CembenchError: for data without a root.
    """
    if root is None:
        return passport
    if "root" not in type(passport.data).model_fields:
        raise CembenchError(f"data set '{passport.data.name}' has no root to replace")
    data = passport.data.model_copy(update={"root": root})
    return passport.model_copy(update={"data": data})


def blank(
    file: Path,
    checksum: str,
    passport: Passport,
    protocol: Protocol,
    split: Split,
    device: torch.device,
) -> Record:
    """Return the record of a checkpoint before anything is measured."""
    return Record(
        kind=passport.kind,
        run=run_name(file),
        method=passport.method,
        dataset=passport.data.title,
        model=passport.model.name,
        seed=passport.seed,
        recipe=recipe_of(passport.config),
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
        labels=passport.labels,
        train_seconds=None if own_name(file) else _train_seconds(file.parent / "history.csv"),
        environment=environment(device),
    )


def record_path(file: Path, folder: Path, protocol: Protocol) -> Path:
    """Return where the record of a checkpoint goes, below the folder of a run."""
    return folder / "eval" / beside(file, f"{protocol.name}.json")


def reusable(path: Path, new: Record) -> Record | None:
    """Return the record that is there if it says what a new one would."""
    try:
        old = load_record(path)
        if old.kind == "classifier":
            load_table(path)
    except CembenchError:
        return None
    return old if old.error is None and identity(old) == identity(new) else None


def identity(record: Record) -> list[str]:
    """Return everything that decides figures; the source of cembench stands for its commit."""
    values = [str(getattr(record, key)) for key in IDENTITY]
    machine = {k: v for k, v in record.environment.items() if k not in ("commit", "dirty")}
    return [*values, str(sorted(machine.items()))]


def _train_seconds(history: Path) -> float | None:
    if not history.exists():
        return None
    try:
        return round(float(pd.read_csv(history)["seconds"].sum()), 3)
    except (KeyError, ValueError):
        return None

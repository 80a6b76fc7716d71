"""A record before anything is measured: what it is about, where it lies, whether it holds."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch

from cembench.data.split import Split
from cembench.evaluation.extractors.features import FeatureReader
from cembench.evaluation.protocol import Protocol
from cembench.evaluation.record import Record, load_record, load_table
from cembench.models.metadata import CheckpointMetadata, beside, own_name
from cembench.models.recipe import recipe_of
from cembench.models.source import ModelSource
from cembench.samplers.context import buffer_of
from cembench.util.errors import CembenchError
from cembench.util.files import sha256
from cembench.util.provenance import environment

IDENTITY = ("checkpoint_sha256", "protocol_digest", "fingerprint", "threat", "inputs")


def applicable(protocol: Protocol, metadata: CheckpointMetadata, file: Path) -> Protocol:
    """Return what a protocol measures of a checkpoint: everything, or an encoder's samples alone.

    Raises:
        CembenchError: when it measures nothing of an encoder.
    """
    part = protocol.measured_of(metadata.kind)
    if part is None:
        raise CembenchError(
            f"{file}: an encoder, of which protocol {protocol.name} measures nothing; fit a head "
            "with `cembench probe`, or add the sampler maxent or infonce"
        )
    return part


def inputs_of(
    file: Path, metadata: CheckpointMetadata, reader: FeatureReader | None
) -> dict[str, str]:
    """Return checksums of whatever else figures are made of."""
    buffer = buffer_of(file)
    values = {"training": metadata.fingerprint}
    if buffer.exists():
        values["buffer"] = sha256(buffer)
    return values | ({} if reader is None else {"extractor": reader.checksum})


def blank(
    source: ModelSource,
    metadata: CheckpointMetadata,
    protocol: Protocol,
    split: Split,
    device: torch.device,
) -> Record:
    """Return the record of a network before anything is measured.

    Args:
        source: the network.
        metadata: its own, but for where its data lies now.
        protocol: what will be measured.
        split: the images that will be attacked.
        device: where.
    """
    file = source.file
    return Record(
        kind=metadata.kind,
        run=source.name,
        method=metadata.method,
        dataset=metadata.data.title,
        model=metadata.model.title,
        seed=metadata.seed,
        recipe=recipe_of(metadata.config),
        threat=protocol.threat.over(metadata.threat),
        protocol=protocol.dump(),
        protocol_digest=protocol.digest,
        split=protocol.split,
        data=metadata.data.dump(),
        fingerprint=split.fingerprint,
        checkpoint_sha256=source.checksum,
        epoch=metadata.epoch,
        finished=metadata.finished,
        gradients=metadata.gradients,
        divergences=metadata.divergences,
        labels=metadata.labels,
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

"""The header of a record: what it is about, and whether an existing record is still valid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from cembench.data import DataSettings
from cembench.data.split import Split
from cembench.energy.threat import Threat
from cembench.evaluation import corrupted
from cembench.evaluation.extractors.features import FeatureReader
from cembench.evaluation.protocol import Protocol
from cembench.evaluation.record import Record
from cembench.evaluation.record.files import load_record, load_table
from cembench.models.metadata import CheckpointMetadata
from cembench.models.recipe import recipe_of
from cembench.models.source import ModelSource
from cembench.util.errors import CembenchError
from cembench.util.files import sha256
from cembench.util.files.layout import RunLayout
from cembench.util.provenance import environment

IDENTITY = ("checkpoint_sha256", "protocol_digest", "fingerprint", "threat", "inputs")


def record_header(
    protocol: Protocol,
    data: DataSettings,
    threat: Threat,
    split: Split,
    device: torch.device,
    **more: Any,
) -> Record:
    """Return a record before anything is measured; `more` is what it says of the network.

    `threat` is the threat model of training, which the protocol may change, and `split` the
    images that will be attacked.
    """
    return Record(
        dataset=data.title,
        threat=protocol.threat.over(threat, "threat.eps"),
        protocol=protocol.dump(),
        protocol_digest=protocol.digest,
        split=protocol.split,
        data=data.dump(),
        fingerprint=split.fingerprint,
        environment=environment(device, protocol.libraries),
        **more,
    )


def header_of(
    source: ModelSource,
    metadata: CheckpointMetadata,
    protocol: Protocol,
    split: Split,
    device: torch.device,
    reader: FeatureReader | None,
    left_out: Sequence[str] = (),
) -> Record:
    """Return the header of a network, with its metadata as they are now.

    `left_out` are the sections of the protocol that do not apply.
    """
    layout = RunLayout.at(source.file)
    return record_header(
        protocol,
        metadata.data,
        metadata.threat,
        split,
        device,
        kind=metadata.kind,
        run=source.name,
        method=metadata.method,
        model=metadata.model.title,
        seed=metadata.seed,
        recipe=recipe_of(metadata.config),
        checkpoint_sha256=source.checksum,
        checkpoint_seal=source.seal,
        epoch=metadata.epoch,
        finished=metadata.finished,
        gradients=metadata.gradients,
        divergences=metadata.divergences,
        labels=metadata.labels,
        not_applicable=list(left_out),
        inputs=_inputs(layout.buffer, metadata, reader, protocol, split),
        train_seconds=None if layout.own_name else _train_seconds(layout.history),
    )


def _inputs(
    buffer: Path,
    metadata: CheckpointMetadata,
    reader: FeatureReader | None,
    protocol: Protocol,
    split: Split,
) -> dict[str, str]:
    """Return checksums of whatever else figures are made of."""
    values = {"training": metadata.fingerprint}
    if protocol.corruptions:
        values["corruptions"] = corrupted.checksum(protocol.corruptions, split.shape)
    if buffer.exists():
        values["buffer"] = sha256(buffer)
    return values | ({} if reader is None else {"extractor": reader.checksum})


def reusable(path: Path, header: Record) -> Record | None:
    """Return the record that is there if it was made from the same things as a new one would be."""
    try:
        old = load_record(path)
        if old.kind == "classifier":
            load_table(path)
    except CembenchError:
        return None
    return old if old.error is None and identity(old) == identity(header) else None


def identity(record: Record) -> list[str]:
    """Return everything that decides figures; the digest of the source stands for its commit."""
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

"""A record about to be computed again, and refused where it cannot be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from cembench.attacks.verdict import CheckedModel
from cembench.data.split import Split, subset
from cembench.evaluation.artifacts import require_evidence
from cembench.evaluation.protocol import Protocol
from cembench.evaluation.record import Record, load_record, load_table
from cembench.evaluation.record_header import applicable, blank
from cembench.models.checkpoint import weights_digest
from cembench.models.metadata import checkpoint_file
from cembench.models.source import ModelSource
from cembench.samplers.context import CheckpointImages
from cembench.util.errors import CembenchError
from cembench.util.files import sha256


@dataclass(frozen=True)
class Case:
    """A record, with all that it takes to compute it again.

    Attributes:
        path: where the record lies, and its evidence beside it.
        record: what it says.
        table: the verdicts beside it; empty for an encoder.
        blank: what it should say before anything is measured.
        model: the network, in evaluation mode.
        whole: the images of the protocol's split.
        split: those of them that were attacked, on the device.
        rows: their numbers in the whole split.
        origins: where chains started, and the device.
    """

    path: Path
    record: Record
    table: pd.DataFrame
    blank: Record
    protocol: Protocol
    model: CheckedModel
    whole: Split
    split: Split
    rows: Tensor
    origins: CheckpointImages


def open_case(path: Path, checkpoint: Path, device: torch.device) -> Case:
    """Read a record with its table, its checkpoint and its data.

    Raises:
        CembenchError: when they do not belong together, or the evidence was not kept.
    """
    record = load_record(path)
    if record.error is not None:
        raise CembenchError(f"{path}: holds no figures: {record.error}")
    file = checkpoint_file(checkpoint)
    if sha256(file) != record.checkpoint_sha256:
        raise CembenchError(f"{path}: of another checkpoint than {file}")
    source = ModelSource.at(checkpoint)
    metadata = source.metadata
    model = source.load(device)
    whole_protocol = Protocol.parse(record.protocol)
    protocol = applicable(whole_protocol, metadata, file)
    if protocol.passes > 1:
        raise CembenchError(f"{path}: verdicts on a randomised network cannot be taken twice")
    require_evidence(path, protocol)
    whole = metadata.images(protocol.split)
    split, rows = subset(whole, protocol.limit)
    if split.fingerprint != record.fingerprint:
        raise CembenchError("the attacked images are not those of the record")
    new = blank(source, metadata, whole_protocol, split, device)
    known = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "weights_sha256": weights_digest(model.state_dict()),
    }
    return Case(
        path=path,
        record=record,
        table=load_table(path) if metadata.kind == "classifier" else pd.DataFrame(),
        blank=new.model_copy(update=known),
        protocol=protocol,
        model=CheckedModel(model, len(split.classes)).eval(),
        whole=whole,
        split=split.to(device),
        rows=rows,
        origins=CheckpointImages(file, metadata, device, new.threat),
    )

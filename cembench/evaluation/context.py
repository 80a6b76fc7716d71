"""What an evaluation is about to do, once checkpoint, data and protocol are known to fit."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from cembench.data.split import Split, subset
from cembench.evaluation.extractors.features import FeatureReader
from cembench.evaluation.protocol import Protocol
from cembench.evaluation.record import Record
from cembench.evaluation.record_header import applicable, blank, inputs_of, record_path
from cembench.evaluation.reference import Comparison
from cembench.models.source import ModelSource
from cembench.samplers.context import CheckpointImages
from cembench.util.errors import CembenchError


@dataclass(frozen=True)
class Work:
    """An evaluation about to be done.

    Attributes:
        whole: the images of the protocol's split; `split` are those to attack, numbers `rows`.
        reader: what reads features, if samples are wanted.
    """

    source: ModelSource
    record: Record
    protocol: Protocol
    whole: Split
    split: Split
    rows: Tensor
    origins: CheckpointImages
    reader: FeatureReader | None

    @cached_property
    def comparison(self) -> Comparison | None:
        """The real side of what samples are compared with; a record that holds needs none.

        Raises:
            CembenchError: when there are too few images.
        """
        plan = self.protocol.samples
        if plan is None or self.reader is None:
            return None
        return Comparison(plan, self.reader, self.whole, self.origins.data)


def prepare(
    source: ModelSource | Path,
    whole_protocol: Protocol,
    device: torch.device,
    data_root: str | None,
    inception_weights: Path | None,
    folder: Path | None,
) -> tuple[Work, Path]:
    """Return what is to be done, and where its record goes; nothing is written yet."""
    source = ModelSource.at(source) if isinstance(source, Path) else source
    file, metadata = source.file, source.metadata.moved(data_root)
    protocol = applicable(whole_protocol, metadata, file)
    plan = protocol.samples
    if plan is None and inception_weights is not None:
        raise CembenchError(f"--inception-weights: protocol {protocol.name} draws no samples")
    reader = None if plan is None else FeatureReader(plan.extractor, device, inception_weights)
    try:
        whole = metadata.images(protocol.split)
        metadata.check(whole)
    except CembenchError as error:
        raise CembenchError(f"{file}: {error}") from error
    split, rows = subset(whole, protocol.limit)
    record = blank(source, metadata, whole_protocol, split, device)
    record = record.model_copy(update={"inputs": inputs_of(file, metadata, reader)})
    origins = CheckpointImages(file, metadata, device, record.threat)
    work = Work(source, record, protocol, whole, split.to(device), rows, origins, reader)
    return work, record_path(file, folder or file.parent, protocol)

"""Entries as a capable forger makes them: whatever is changed, all checksums and seals fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from cembench.evaluation.context import EvaluationContext, prepare
from cembench.evaluation.measure import measure
from cembench.evaluation.measures.samples import SavedSamples
from cembench.evaluation.measures.saved_attacks import SavedAttacks
from cembench.evaluation.protocol import Protocol
from cembench.evaluation.record import Record
from cembench.evaluation.record.files import load_record, load_table, save_record
from cembench.models.source import ModelSource
from cembench.util.files import sha256
from cembench.util.files.layout import RunLayout
from cembench.util.files.seal import seal_at_start
from cembench.util.files.tensors import read_tensors, write_tensors


class Forger:
    """Changes an entry."""

    def __init__(self, entry: Path) -> None:
        self.entry = entry
        (self.path,) = RunLayout(entry).records()

    @property
    def record(self) -> Record:
        return load_record(self.path)

    @property
    def table(self) -> pd.DataFrame:
        return load_table(self.path)

    def facts(self, **changes: Any) -> None:
        """List the files as they are now, and say something else."""
        place = self.entry / "entry.json"
        files = [file for file in self.entry.rglob("*") if file.is_file() and file != place]
        listed = {file.relative_to(self.entry).as_posix(): sha256(file) for file in files}
        values = json.loads(place.read_text()) | {"files": listed}
        place.write_text(json.dumps(values | changes))

    def write(self, table: pd.DataFrame | None = None, **changes: Any) -> None:
        """Write another table, and another record."""
        record = self.record.model_copy(update=changes)
        save_record(self.path, record, self.table if table is None else table)
        self.facts()

    def checkpoint(self, file: Path, **changes: Any) -> None:
        """Put another checkpoint there, and say in the record that it was measured."""
        (self.entry / "model.safetensors").write_bytes(file.read_bytes())
        known = {
            "checkpoint_sha256": sha256(file),
            "checkpoint_seal": seal_at_start(file.read_bytes()),
        }
        self.write(**known, **changes)

    def images(self, **changes: Tensor) -> None:
        """Save other adversarial images of PGD."""
        file = RunLayout.adversarial(self.path) / "pgd.safetensors"
        write_tensors(file, read_tensors(file) | changes, {})
        self.facts()

    def samples(self, number: int, **changes: Tensor) -> None:
        """Save other samples, with the logits that the network has for them."""
        file = RunLayout.samples(self.path) / f"rcs-gaussian.{number}.safetensors"
        values = read_tensors(file) | changes
        with torch.no_grad():
            model = self.context().model
            values["logits"] = model(values["images"].float() / 255)
            values["start_logits"] = model(values["starts"].float() / 255)
        write_tensors(file, values, {})

    def context(self) -> EvaluationContext:
        """Return the context of the measurement."""
        protocol = Protocol.parse(self.record.protocol)
        return prepare(ModelSource.at(self.entry), protocol, torch.device("cpu"))

    def recount(self) -> None:
        """Make record and table those of the evidence that is there now."""
        context, record, table = self.context(), self.record, self.table
        samples = SavedSamples(context, self.path, record.generation)
        found = measure(context, SavedAttacks(self.path, context.rows, table), samples)
        self.write(found.table, **found.results)


def survive(table: pd.DataFrame, rows: pd.Index) -> pd.DataFrame:
    """Return a table in which some images survive PGD."""
    table = table.copy()
    table.loc[rows, ["pgd_broken", "pgd_broken_8bit"]] = False
    table.loc[rows, "pgd_by"] = ""
    table.loc[rows, "pgd_norm"] = float("nan")
    return table

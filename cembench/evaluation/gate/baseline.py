"""The baseline of the gate: a protocol, and per checkpoint its verdicts and figures."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from cembench.evaluation.protocol import Protocol
from cembench.evaluation.record import Record
from cembench.evaluation.section import GatedValue
from cembench.evaluation.sections import SECTIONS
from cembench.util.errors import CembenchError, blaming
from cembench.util.files import sha256, write_text
from cembench.util.files.parquet import read_frame, write_table
from cembench.util.files.yaml import read_yaml, to_yaml
from cembench.util.lazy import lazy_imports
from cembench.util.settings import Name, Settings

with lazy_imports():
    import pandas as pd

KEPT = ("_broken", "_sample", "_pred")  # endings of the columns of verdicts


class Row(Settings):
    """One checkpoint.

    Attributes:
        checkpoint: where it lies, from the folder of the baseline.
        checkpoint_sha256: its checksum when the figures were taken.
        fingerprint: SHA-256 of the attacked images.
        verdicts: a parquet file with one row per image, from the folder of the baseline.
        verdicts_sha256: its checksum.
        sanity_failed: the sanity checks that failed already.
        metrics: the other figures.
    """

    checkpoint: str
    checkpoint_sha256: str
    fingerprint: str
    verdicts: str
    verdicts_sha256: str
    sanity_failed: list[str] = []
    metrics: dict[str, GatedValue] = {}


class Baseline(Settings):
    """The protocol, the tolerances and the rows that checkpoints are compared with.

    Attributes:
        format: version of the file.
        protocol: how they are measured; its threat model is that of all rows.
        margin: an accuracy may be lower by so much, as a share of the images.
        level: chance of a false alarm over all accuracies together (Holm 1979).
        rows: by name of the run.
    """

    format: Literal[1] = 1
    protocol: Protocol
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.02
    level: Annotated[float, Field(gt=0, lt=1)] = 0.05
    rows: dict[Name, Row] = {}


def load_baseline(path: Path) -> Baseline:
    """Read a baseline; its protocol is named after the file unless it has a name.

    Raises:
        ConfigError: naming each wrong key.
    """
    values = read_yaml(path)
    if isinstance(values.get("protocol"), dict):
        values["protocol"] = {"name": f"baseline-{path.stem}", **values["protocol"]}
    with blaming(path):
        return Baseline.parse(values)


def save_baseline(path: Path, baseline: Baseline) -> None:
    """Write a baseline."""
    write_text(path, to_yaml(baseline.dump()))


def load_verdicts(path: Path, row: Row) -> pd.DataFrame:
    """Read the verdicts of a row of the baseline at `path`.

    Raises:
        CembenchError: when they are missing, damaged or others.
    """
    file = path.parent / row.verdicts
    if sha256(file) != row.verdicts_sha256:
        raise CembenchError(f"{file}: not the verdicts of {path}; restore it, or --update")
    return read_frame(file)


def updated(
    baseline: Baseline, path: Path, name: str, checkpoint: Path, record: Record, table: pd.DataFrame
) -> Baseline:
    """Return the baseline with a row as it is now; its verdicts are written beside the file.

    Tolerances that are there already stay as they are.
    """
    file = path.parent / f"{path.stem}-verdicts" / f"{name}.parquet"
    kept = [c for c in table.columns if c.endswith(KEPT) or c in ("index", "label")]
    write_table(file, table[kept])
    old = baseline.rows[name].metrics if name in baseline.rows else {}
    metrics = {
        key: old[key].model_copy(update={"value": metric.value}) if key in old else metric
        for key, metric in gated_of(record).items()
    }
    row = Row(
        checkpoint=relative(checkpoint, path.parent),
        checkpoint_sha256=record.checkpoint_sha256,
        fingerprint=record.fingerprint,
        verdicts=relative(file, path.parent),
        verdicts_sha256=sha256(file),
        sanity_failed=record.sanity_failed,
        metrics=metrics,
    )
    return baseline.model_copy(update={"rows": {**baseline.rows, name: row}})


def gated_of(record: Record) -> dict[str, GatedValue]:
    """Return the numbers of a record that have a tolerance, with a customary one."""
    found: dict[str, GatedValue] = {}
    for section in SECTIONS:
        found |= section.gated(section.of(record))
    return found


def relative(path: Path, folder: Path) -> str:
    """Return a path as seen from a folder."""
    return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()

"""Verdict files of a baseline: one row per image, under names that contain their checksums."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from cembench.evaluation.gate.baseline import Baseline, Row, load_baseline
from cembench.evaluation.sections.robustness import PARTS
from cembench.evaluation.sections.threats import AttackRun
from cembench.util.errors import CembenchError
from cembench.util.files import sha256, write_bytes
from cembench.util.files.parquet import read_table, sealed_table
from cembench.util.lazy import lazy_imports

with lazy_imports():
    import pandas as pd

OWN = re.compile(r"\.?.+-[0-9a-f]{12}\.parquet(\.\w{8}\.tmp)?")  # also what a killed write left


def folder_of(path: Path) -> Path:
    """Return the folder of the verdict files of a baseline, which is that of no other one."""
    return path.with_name(f"{path.stem if path.suffix == '.yaml' else path.name}-verdicts")


def verdicts_of(table: pd.DataFrame, figures: dict[str, Any]) -> pd.DataFrame:
    """Return the columns of a table of verdicts that a baseline keeps, for figures of a record."""
    wanted = {f"{name}{ending}" for name in figures for ending in ("_broken", "_sample")}
    wanted |= {"index", "label"}
    return table[[c for c in map(str, table.columns) if c in wanted or c.endswith("_pred")]]


def write_verdicts(path: Path, name: str, table: pd.DataFrame, protocol: dict[str, Any]) -> Path:
    """Write the verdicts of a row beside those that are there, with the protocol they are under.

    Returns:
        The file.
    """
    content = sealed_table(table, {"seal": "", "protocol": protocol})
    checksum = hashlib.sha256(content).hexdigest()
    file = folder_of(path) / f"{name}-{checksum[:12]}.parquet"
    write_bytes(file, content)
    return file


def load_verdicts(path: Path, baseline: Baseline, name: str) -> pd.DataFrame:
    """Read the verdicts of a row of the baseline at `path`.

    Raises:
        CembenchError: when they are missing, damaged, others, or not those of this protocol.
    """
    row = baseline.rows[name]
    file = path.parent / row.verdicts
    if sha256(file) != row.verdicts_sha256:
        raise CembenchError(f"{file}: not the verdicts of {path}; restore it, or --update")
    runs, norm = row.applicable(baseline.protocol), baseline.protocol.threat.norm
    apart = [run for run in runs if run.minimises_another(norm)]
    table = read_table(file, legacy=not row.protocol_digest)
    table = table.drop(columns=[f"{run.title}_broken" for run in apart], errors="ignore")
    for problem in _problems(table, [run for run in runs if run not in apart]):
        raise CembenchError(f"{file}: {problem}; restore it, or --update")
    return table


def protocol_of(path: Path, row: Row) -> dict[str, Any] | None:
    """Return the settings that the verdicts of a row are under, as far as their file says so."""
    with suppress(CembenchError):
        settings: dict[str, Any] = read_table(path.parent / row.verdicts).attrs["protocol"]
        return settings
    return None


def clear_unnamed(path: Path, before: Baseline) -> None:
    """Remove verdict files that no row of the baseline at `path` names, from its own folder alone.

    Of files without a checksum in their names, only those that rows named before are removed.
    """
    old = _named(path, before)
    now = _named(path, load_baseline(path)) if path.exists() else set()
    for file in folder_of(path).glob("*"):
        own = OWN.fullmatch(file.name) or file.resolve() in old
        if own and file.resolve() not in now:
            with suppress(OSError):  # nobody reads it, and the next update tries again
                file.unlink()


def _named(path: Path, baseline: Baseline) -> set[Path]:
    return {(path.parent / row.verdicts).resolve() for row in baseline.rows.values()}


def _problems(table: pd.DataFrame, runs: list[AttackRun]) -> Iterator[str]:
    """Yield what is wrong with the columns of a verdict file, for the attacks of its protocol."""
    wanted = {"index", "label", "clean_pred"} | {f"{run.title}_broken" for run in runs}
    wanted |= {f"{run.title}_sample" for run in runs if run.attack.sampling is not None}
    if not table.columns.is_unique:
        yield "two columns have the same name"
        return
    yield from (f"it has no column '{column}'" for column in sorted(wanted - {*table}))
    for key, values in table.items():
        column = str(key)
        if column not in wanted and not column.endswith("_pred"):
            yield f"the column '{column}' belongs to nothing that the protocol measures"
        elif problem := _problem(values, column):
            yield f"the column '{column}' {problem}"


def _problem(values: pd.Series, column: str) -> str:
    """Say what is wrong with the values of a column, if anything is."""
    if column.endswith("_broken"):
        return "" if values.dtype == bool else "holds other values than true and false"
    if column.endswith("_sample"):
        known = all(isinstance(part, str) and part in PARTS for part in values)
        return "" if known else f"holds other values than {', '.join(PARTS[1:])}"
    if values.dtype.kind not in "iu" or values.isna().any() or (values < 0).any():
        return "holds other values than whole numbers from 0"
    return "numbers an image twice" if column == "index" and not values.is_unique else ""

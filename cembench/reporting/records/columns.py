"""Columns of records in one table: those of the leaderboards, each of one type in all files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from cembench.evaluation.record import Record
from cembench.reporting.leaderboard.rows import row_of
from cembench.util.display.format import missing

if TYPE_CHECKING:
    import pyarrow as pa

FIXED = {  # which every file has, first those that say what was measured
    **dict.fromkeys(["path", "run", "method", "labels", "dataset", "threat", "norm"], "string"),
    "eps": "double",
    **dict.fromkeys(["clean_acc", "pgd_acc", "autoattack_acc", "worst_case_acc"], "double"),
    "n_images": "int64",
    "seed": "int64",
    **dict.fromkeys(["model", "kind", "split", "protocol", "created"], "string"),
    "finished": "bool",
    "unchecked": "bool",
    **dict.fromkeys(["sanity_failed", "checkpoint", "error"], "string"),
    **dict.fromkeys(["parameters", "flops", "divergences", "train_gradients"], "int64"),
    **dict.fromkeys(["train_seconds", "eval_seconds", "train_images_per_second"], "double"),
    **dict.fromkeys(["weights_sha256", "protocol_digest", "recipe", "fingerprint"], "string"),
    **dict.fromkeys(["reference", "threats", "cembench"], "string"),
}
LAST = {"record": "string"}
LEFT_OUT = ("slug",)  # of `row_of`: it is for names of files


def arrow_table(found: Iterable[tuple[str, Record, bytes]]) -> pa.Table:
    """Return a row for each record, from its path in the table, itself and its file's content.

    Columns that every file has come first; then those of figures, numbers as double, where a record
    has some. What a record lacks is null.
    """
    rows = [_row(*one) for one in found]
    figures = dict.fromkeys(key for row in rows for key in row)
    names = [*FIXED, *(key for key in figures if key not in (*FIXED, *LAST, *LEFT_OUT)), *LAST]
    return _table({name: [row.get(name) for row in rows] for name in names})


def _row(place: str, record: Record, content: bytes) -> dict[str, Any]:
    known = row_of(record) | {
        "path": place,
        "run": record.run,
        "norm": record.threat.norm,
        "eps": record.threat.eps,
        "kind": record.kind,
        "created": record.created,
        "finished": record.finished,
        "record": content.decode(),
    }
    return {key: value for key, value in known.items() if not missing(value)}


def _table(columns: Mapping[str, list[Any]]) -> pa.Table:
    import pyarrow as pa

    types = {**FIXED, **LAST}
    kinds = {name: types.get(name) or _kind(cells) for name, cells in columns.items()}
    arrays = {name: pa.array(columns[name], kind) for name, kind in kinds.items()}
    return pa.table(arrays)


def _kind(cells: list[Any]) -> str:
    """Return the type of a column of figures, in which whole numbers are not told apart."""
    return "string" if any(isinstance(cell, str) for cell in cells) else "double"

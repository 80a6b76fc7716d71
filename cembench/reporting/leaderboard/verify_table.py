"""Verification of a table: the committed one beside that of runs made again."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pandas as pd

from cembench.evaluation.diff import Comparison
from cembench.evaluation.record import Record
from cembench.reporting.leaderboard import build_boards
from cembench.util.errors import CembenchError
from cembench.util.files import read_bytes

KEYS = ("run", "runs", "sampler", "start", "seed")  # what tells rows apart, where a table has it
RATES = ("_seconds", "_per_second")  # ends of columns that depend on the machine
MEANS = "(_std|_half|_runs)?"
LATER = re.compile(
    rf"(nll|brier){MEANS}|flops|.+_worst_class_acc{MEANS}|.+_(precision|recall){MEANS}"
    rf"|.+_outside|.+_median_[a-z0-9]+(_low|_high)?{MEANS}"
)
VARIES = ("cembench", "recipe", "protocol_digest", "plan", "unchecked")


def compare_table(path: Path, records: Iterable[Record]) -> list[Comparison]:
    """Compare a table cell by cell with the one of its name that the records of other runs give.

    Cells are compared as the file has them, with six digits. Wall times and rates, the version of
    cembench, digests of settings and columns that tables of earlier versions lack are left out;
    digests of weights are not: where they agree, training was the same bit for bit.

    Args:
        path: the CSV file, under the name that it was written with.
        records: of the remade runs.

    Returns:
        How many rows are in both and how many columns agree, then each row that one side lacks, and
        the first cell of each column that differs.

    Raises:
        CembenchError: when the file is not a table, or the records give none of its name.
    """
    old, new = _table(path, read_bytes(path)), _table(path, _remade(path, records))
    both = [row for row in old.index if row in new.index]
    # Settings that gain a key give the same figures under other digests. Whether a protocol has
    # checks is no figure, and tables of earlier versions do not say it.
    varies = [c for c in [*old, *new] if c in VARIES or c.endswith(RATES)]
    varies += [c for c in new if c not in old and LATER.fullmatch(str(c))]
    columns = [c for c in dict.fromkeys([*old, *new]) if c not in varies]
    differing = [row for column in columns for row in _differing(old, new, column, both)]
    lacking = old.index.symmetric_difference(new.index, sort=False)
    there = {True: "there", False: None}
    return [
        Comparison("rows in both tables", len(both) + len(lacking), len(both)),
        Comparison("columns that agree", len(columns), len(columns) - len(differing)),
        *(
            Comparison(f"row {row}", there[row in old.index], there[row in new.index])
            for row in lacking
        ),
        *differing,
    ]


def _remade(path: Path, records: Iterable[Record]) -> bytes:
    boards = {board.stem: board for board in build_boards(records)}
    if path.stem not in boards:
        raise CembenchError(f"{path}: the runs give no such table, but {', '.join(boards)}")
    return boards[path.stem].csv().encode()


def _table(path: Path, content: bytes) -> pd.DataFrame:
    """Return the cells as text, each row under its name."""
    try:
        table = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
    except ValueError as error:
        raise CembenchError(f"{path}: not a table") from error
    keys = [key for key in KEYS if key in table]
    if not keys:
        raise CembenchError(f"{path}: not a leaderboard: it has no column of runs")
    table.index = pd.Index(table[keys].agg(" ".join, axis=1))
    if not table.index.is_unique:
        twice = table.index[table.index.duplicated()][0]
        raise CembenchError(f"{path}: two rows are '{twice}'; give the runs of this table alone")
    return table


def _differing(
    old: pd.DataFrame, new: pd.DataFrame, column: str, rows: list[str]
) -> list[Comparison]:
    """Return the first cell of a column that differs; nothing where all agree."""
    before, now = (dict(table[column]) if column in table else {} for table in (old, new))
    cells = [Comparison(f"{column} of {row}", before.get(row), now.get(row)) for row in rows]
    wrong = [cell for cell in cells if not cell.agrees]
    more = f" (and of {len(wrong) - 1} other rows)" if len(wrong) > 1 else ""
    return [replace(cell, figure=cell.figure + more) for cell in wrong[:1]]

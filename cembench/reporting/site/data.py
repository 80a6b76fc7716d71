"""Data of a site: tables and runs as JSON, beside the pages that show them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cembench.reporting.leaderboard.board import Board
from cembench.reporting.leaderboard.columns import about
from cembench.reporting.page.runs import Run
from cembench.reporting.site.plain import PlainTable

INTERVAL = {"low": "_low", "high": "_high", "error": "_error", "std": "_std", "half": "_half"}


def board_data(board: Board, runs: Sequence[Sequence[Run]]) -> dict[str, Any]:
    """Return a board as plain values: what its columns are, and all rows, numbers as numbers.

    Args:
        board: the board.
        runs: the runs behind each row.
    """
    headings = {column: heading for heading, column in board.numbers.items()}
    rows = [{str(k): v for k, v in row.items()} for row in board.table.to_dict("records")]
    columns = described(map(str, board.table.columns), headings)
    pages = [[run.link for run in row] for row in runs]
    notes = list(board.notes)
    return {"title": board.title, "notes": notes, "columns": columns, "rows": rows, "pages": pages}


def plain_data(table: PlainTable, runs: Sequence[Sequence[Run]]) -> dict[str, Any]:
    """Return a table without records as `board_data` does."""
    head = {"title": table.shown.title, "notes": [table.shown.note], "records": False}
    pages = [[run.link for run in row] for row in runs]
    return {**head, "columns": described(table.rows[0], {}), "rows": table.values, "pages": pages}


def described(columns: Iterable[str], headings: Mapping[str, str]) -> list[dict[str, str]]:
    """Return each column with what it is, and the columns of its interval or error, if any."""
    names = list(columns)
    found = []
    for name in names:
        ends = {key: name + end for key, end in INTERVAL.items() if name + end in names}
        what = {"name": name, "heading": headings.get(name, ""), "about": about(name), **ends}
        found.append({key: value for key, value in what.items() if value})
    return found


def rows_of(run: Run, boards: Sequence[Board]) -> list[dict[str, Any]]:
    """Return the rows about a run alone, each with the board and its place there."""
    found = []
    for board in boards:
        for place, row in enumerate(board.sources):
            if len(row) == 1 and row[0] is run.record:
                values = {str(k): v for k, v in board.table.iloc[place].items()}
                own = {"board": board.stem, "title": board.title, "place": place + 1}
                found.append({**own, "of": len(board.sources), "row": values})
    return found

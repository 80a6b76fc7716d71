"""Tables of the page: each row with the runs behind it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from cembench.reporting.leaderboard.board import Board
from cembench.reporting.page.charts import PlacedChart
from cembench.reporting.page.runs import Run
from cembench.util.display.charts import Cell, Table

PLAIN = {  # headings of the page by how Markdown tables, the committed ones included, begin theirs
    "gain over its seeds": "KID improvement over init",
    "gain ": "KID improvement ",
    "KID of its seeds": "KID of initial images",
    "read as intended": "classifier agreement",
}


@dataclass(frozen=True)
class LinkedTable:
    """A table of the page.

    Attributes:
        table: what is shown.
        runs: the runs behind each row.
        stem: the name, without ending, of files that it is saved as.
        apart: why it must not be compared with others, if so.
        csv: all columns as a file; empty where there are no more than is shown.
    """

    table: Table
    runs: Sequence[Sequence[Run]]
    stem: str
    apart: str = ""
    csv: str = ""


def of_board(board: Board, known: dict[int, Run], apart: str = "") -> LinkedTable:
    """Return a leaderboard; `known` has the runs by the identity of their records."""
    columns = [_column(board, heading) for heading in board.shown.columns]
    what, _, how = board.title.partition(";")
    head = [plain_heading(str(heading)) for heading in board.shown.columns]
    note = ". ".join(filter(None, [how.strip(), *board.notes]))
    table = Table(what, head, list(zip(*columns, strict=True)), note)
    sources = board.sources or [()] * len(board.shown)
    runs = [[known[id(record)] for record in row if id(record) in known] for row in sources]
    return LinkedTable(table, runs, board.stem, apart, board.csv())


def of_chart(placed: PlacedChart) -> LinkedTable:
    """Return the table of a chart, whose rows are its runs."""
    assert placed.chart.table is not None
    table = replace(placed.chart.table, title=placed.title, note=placed.chart.caption)
    return LinkedTable(table, [[placed.runs[row[0].text]] for row in table.rows], placed.stem)


def marks(runs: Iterable[Run]) -> list[tuple[str, str]]:
    """Return the warnings about runs, each once."""
    return list(dict.fromkeys(mark for run in runs for mark in run.marks))


def plain_heading(heading: str) -> str:
    """Return a heading of a Markdown table as a page has it."""
    known = next((start for start in PLAIN if heading.startswith(start)), "")
    return PLAIN.get(known, "") + heading.removeprefix(known)


def _column(board: Board, heading: str) -> list[Cell]:
    texts = [str(text) for text in board.shown[heading]]
    values = board.behind(heading)
    if values is None:
        return [Cell(text) for text in texts]
    return [Cell.of(*pair) for pair in zip(values.astype(float), texts, strict=True)]

"""A table in two forms: all columns for programs, the telling ones for people."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from cembench.evaluation.record import Record
from cembench.util.files import write_text
from cembench.util.markdown import markdown_table

Sources = Sequence[Sequence[Record]]


@dataclass(frozen=True)
class Board:
    """A ranking of rows measured in the same way.

    Attributes:
        stem: its file name without ending, such as `digits-linf-0.125`.
        title: what all rows have in common.
        table: every column, numbers as they are.
        shown: the columns for people, as text.
        numbers: by column of `shown`, the one of `table` that is behind its text.
        sources: the records that each row is made of; empty where it is made of none.
    """

    stem: str
    title: str
    table: pd.DataFrame
    shown: pd.DataFrame
    numbers: Mapping[str, str] = field(default_factory=dict)
    sources: Sources = ()

    def csv(self) -> str:
        """Return every column, numbers with six digits."""
        return self.table.to_csv(index=False, lineterminator="\n", float_format="%.6g")

    def markdown(self) -> str:
        """Return the table for people."""
        return markdown_table(self.shown)


class Shown:
    """The columns for people, gathered one by one, and the one of the table behind each."""

    def __init__(self, table: pd.DataFrame) -> None:
        self.table = table
        self.cells: dict[str, Any] = {}
        self.numbers: dict[str, str] = {}

    def add(self, heading: str, column: str, cells: Iterable[Any] | None = None) -> None:
        """Show a column of the table, as it is unless its cells are given as text."""
        self.cells[heading] = self.table[column] if cells is None else list(cells)
        self.numbers[heading] = column

    def board(self, stem: str, title: str, kept: pd.DataFrame, sources: Sources) -> Board:
        """Return the board, whose file has the columns `kept`."""
        return Board(stem, title, kept, pd.DataFrame(self.cells), self.numbers, sources)


def write_boards(boards: Sequence[Board], out: Path) -> list[Path]:
    """Write `STEM.csv` and `STEM.md` for each board and return the paths."""
    written = []
    for board in boards:
        text = f"# {board.title}\n\n{board.markdown()}"
        for ending, content in (("csv", board.csv()), ("md", text)):
            path = out / f"{board.stem}.{ending}"
            write_text(path, content)
            written.append(path)
    return written


def slug(*words: object) -> str:
    """Return words as one file name."""
    return re.sub(r"[^\w.@-]+", "-", "-".join(str(word) for word in words if word))

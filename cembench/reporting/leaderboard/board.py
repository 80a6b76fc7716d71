"""Boards: a table as CSV with all columns, and as Markdown with the main ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from cembench.evaluation.record import Record
from cembench.util.display.format import missing
from cembench.util.display.markdown import markdown_table
from cembench.util.files import write_text

FORMULA = re.compile(r"[=+@\t\r]|-(?![\d.]|inf)")  # not a negative number
Sources = Sequence[Sequence[Record]]


@dataclass(frozen=True)
class Board:
    """A ranking of rows measured in the same way.

    Attributes:
        stem: its file name without ending, such as `digits-linf-0.125`.
        title: what all rows have in common.
        table: every column, numbers as they are.
        shown: the columns for people, as text.
        numbers: by column of `shown`, the column of `table` that is behind its text.
        sources: the records behind each row; empty where there are none.
        notes: what marks in the table mean.
    """

    stem: str
    title: str
    table: pd.DataFrame
    shown: pd.DataFrame
    numbers: Mapping[str, str] = field(default_factory=dict)
    sources: Sources = ()
    notes: Sequence[str] = ()

    def __repr__(self) -> str:
        return f"<Board {self.title}: {len(self.table)} rows>"

    def _repr_html_(self) -> str:
        notes = "".join(f"<p>{escape(text)}</p>" for text in (self.title, *self.notes))
        return f"{notes}{self.shown.to_html(index=False)}"

    def csv(self) -> str:
        """Return every column, numbers with six digits.

        Text that a table program would take for a formula has an apostrophe before it.
        """
        return safe_csv(self.table)

    def markdown(self) -> str:
        """Return the table for people, with the meaning of its marks below."""
        return "".join([markdown_table(self.shown), *(f"\n{note}\n" for note in self.notes)])


class Shown:
    """The columns for people, gathered one by one, and the column of the table behind each."""

    def __init__(self, table: pd.DataFrame) -> None:
        self.table = table
        self.cells: dict[str, Any] = {}
        self.numbers: dict[str, str] = {}
        self.notes: list[str] = []

    @property
    def labels(self) -> list[str]:
        """The column that says which labels training used, if some row did not use all."""
        return ["labels"] if (self.table["labels"] != "all").any() else []

    def add(
        self, heading: str, column: str, text: Callable[..., str] | None = None, *more: str
    ) -> None:
        """Show a column of the table.

        Args:
            heading: for people.
            column: its name.
            text: makes the text of a cell; unless given, cells are shown as they are.
            more: columns whose cells `text` gets besides.
        """
        cells = [self.table[name] for name in (column, *more)]
        shown = cells[0] if text is None else [text(*row) for row in zip(*cells, strict=True)]
        self.cells[heading] = shown
        self.numbers[heading] = column

    def mark(self, heading: str, column: str, *of: str, note: str = "") -> None:
        """Show a column of warnings, if any row has one.

        Args:
            heading: for people.
            column: its name; words, or how many of the rows in column `of` are concerned.
            of: that column.
            note: what the mark means, for a line below the table.
        """
        if any(map(flagged, self.table[column])):
            self.add(heading, column, flagged, *of)
            self.notes += [note] if note else []

    def board(self, stem: str, title: str, kept: pd.DataFrame, sources: Sources) -> Board:
        """Return the board, whose file has the columns `kept`."""
        shown = pd.DataFrame(self.cells)
        return Board(stem, title, kept, shown, self.numbers, sources, self.notes)


def safe_csv(table: pd.DataFrame) -> str:
    """Return a table as CSV, numbers with six digits, in which no text is a formula."""
    safe = table.map(lambda cell: f"'{cell}" if FORMULA.match(str(cell)) else cell)
    return safe.to_csv(index=False, lineterminator="\n", float_format="%.6g")


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


def free_stem(stem: str, more: Iterable[str], taken: Container[str]) -> str:
    """Return a file name with as many more words as it takes to be a name of its own."""
    for word in more:
        stem = slug(stem, word) if stem in taken else stem
    return stem


def optional(text: object) -> str:
    """Return a text, empty where there is none."""
    return "" if missing(text) else str(text)


def flagged(what: str | int, of: int | None = None) -> str:
    """Return words or a count as a mark, empty where there is nothing to say."""
    text = "" if what == 0 else optional(what)
    return text and f"⚠ {text}" + ("" if of is None else f" of {of}")

"""Boards: a table as CSV with all columns, and as Markdown or LaTeX with the main ones."""

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
from cembench.util.display.html import html_table
from cembench.util.display.latex import latex_table
from cembench.util.display.markdown import markdown_table, markdown_text
from cembench.util.files import digest, write_text
from cembench.util.files.names import shown

FORMULA = re.compile(r"[=+@\t\r]|-(?![\d.]|inf)")  # not a negative number
LONGEST = 80  # bytes of a word in a file name
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
        title, *notes = (f"<p>{escape(text)}</p>" for text in (self.title, *self.notes))
        return f"{title}{html_table(self.shown.columns, self.shown.to_numpy())}{''.join(notes)}"

    def to_frame(self) -> pd.DataFrame:
        """Return the columns for people as numbers, the rows by their first column.

        Columns have two levels: the name, as in the CSV file, and `value`, with `low` and `high`,
        the ends of its interval, or `error`, where it has them.
        """
        found = {}
        first, *others = [self.numbers.get(heading, heading) for heading in map(str, self.shown)]
        for column in (name for name in others if name in self.table):
            found[column, "value"] = self.table[column]
            ends = {end: f"{column}_{end}" for end in ("low", "high", "error")}
            found |= {(column, k): self.table[v] for k, v in ends.items() if v in self.table}
            if (half := f"{column}_half") in self.table:  # of a mean over seeds
                found[column, "low"] = self.table[column] - self.table[half]
                found[column, "high"] = self.table[column] + self.table[half]
        frame = pd.DataFrame(found)
        return frame.set_index(pd.Index(self.table[first], name=first))

    def csv(self) -> str:
        """Return every column, numbers with six digits.

        Text that a table program would take for a formula has an apostrophe before it, and what
        cannot be shown is an escape.
        """
        return safe_csv(self.table)

    def markdown(self) -> str:
        """Return the table for people, with the meaning of its marks below."""
        return "".join([markdown_table(self.shown), *(f"\n{note}\n" for note in self.notes)])

    def latex(self) -> str:
        """Return the table for papers, for the package booktabs; what it is about in comments."""
        about = ["needs \\usepackage{booktabs}", self.title, *self.notes]
        numeric = {one for one in map(str, self.shown) if self.behind(one) is not None}
        comments = "".join(f"% {shown(line)}\n" for line in about)
        return comments + latex_table(self.shown, numeric)

    def behind(self, heading: str) -> pd.Series | None:
        """Return the numbers behind a column of `shown`; None for a column of text."""
        values = self.table.get(self.numbers.get(heading, heading))
        text = values is None or any(isinstance(value, str) for value in values)
        return None if text else values


class Boards(list[Board]):
    """Boards, which a notebook shows one below the other."""

    def to_frame(self) -> pd.DataFrame:
        """Return the first board, that of most images, as `Board.to_frame` does."""
        return self[0].to_frame() if self else pd.DataFrame()

    def _repr_html_(self) -> str:
        return "".join(board._repr_html_() for board in self)


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
    safe = table.map(_plain).rename(columns=_plain)
    return safe.to_csv(index=False, lineterminator="\n", float_format="%.6g")


def write_boards(boards: Sequence[Board], out: Path, *, latex: bool = False) -> list[Path]:
    """Write `STEM.csv` and `STEM.md` for each board, if asked `STEM.tex` too; return the paths."""
    written = []
    for board in boards:
        text = f"# {markdown_text(board.title)}\n\n{board.markdown()}"
        paper = [("tex", board.latex())] if latex else []
        for ending, content in (("csv", board.csv()), ("md", text), *paper):
            path = out / f"{board.stem}.{ending}"
            write_text(path, content)
            written.append(path)
    return written


def slug(*words: object) -> str:
    """Return words as one file name."""
    return re.sub(r"[^\w.@-]+", "-", "-".join(_short(str(word)) for word in words if word))


def _short(word: str) -> str:
    """Return a word, or the beginning of one that no file name has room for, and its digest."""
    if len(word.encode()) <= LONGEST:
        return word
    return f"{word.encode()[: LONGEST // 2].decode(errors='ignore')}-{digest(word)}"


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


def _plain(cell: Any) -> Any:
    """Return a cell or heading as a table program takes it for text."""
    if not isinstance(cell, str):
        return cell
    safe = shown(cell)
    return f"'{safe}" if FORMULA.match(safe) else safe

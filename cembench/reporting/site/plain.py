"""Tables without records: what `cembench leaderboard` wrote, read back as data."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from cembench.reporting.page.tables import plain_heading
from cembench.reporting.site.names import page_name
from cembench.util.display.charts import Cell, Table
from cembench.util.display.format import NOTHING
from cembench.util.errors import CembenchError
from cembench.util.files import read_bytes

FIGURE = re.compile(r"⚠? ?([-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?)( ?%?)(?: .*)?")
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
TEXT = {"run", "runs", "method", "weights_sha256", "protocol_digest", "recipe", "fingerprint"}
TEXT |= {"plan", "extractor_sha256", "cembench", "model", "sampler", "protocol"}
ESCAPED = re.compile(r"'(?=[=+@\t\r-])")
Value = str | float | int | bool | None


@dataclass(frozen=True)
class PlainTable:
    """A table of a leaderboard whose records are not there.

    Attributes:
        title: its path from the folder that was given.
        rows: all columns as text, as the file has them.
        shown: the columns for people, with title and notes.
        content: the file itself.
    """

    title: str
    rows: list[dict[str, str]]
    shown: Table
    content: bytes

    @property
    def name(self) -> str:
        """The name of its page."""
        return "--".join(map(page_name, self.title.split("/")))  # no part has two dashes

    @property
    def stem(self) -> str:
        """The name of its files."""
        return page_name(self.title.rpartition("/")[2])

    @property
    def values(self) -> list[dict[str, Value]]:
        """All rows with numbers as numbers; None for an empty cell."""
        columns = {key: [row[key] for row in self.rows] for key in self.rows[0]}
        numeric = {key for key, cells in columns.items() if key not in TEXT and _numeric(cells)}
        return [{key: _value(key in numeric, row[key]) for key in row} for row in self.rows]

    def keys(self, row: Mapping[str, str]) -> tuple[str, ...]:
        """Return what a row tells its record by, if all of it is there."""
        for names in (("weights_sha256", "protocol_digest"), ("weights_sha256", "protocol")):
            if all(name in row for name in names):
                more = () if names[1] == "protocol_digest" else (row.get("fingerprint", ""),)
                return (*(row[name] for name in names), *more)
        return (row.get("recipe", ""),)

    def within(self, known: Collection[tuple[str, ...]]) -> bool:
        """Return whether all rows are about known records."""
        return all(self.keys(row) in known for row in self.rows)


def read_plain(path: Path, title: str) -> PlainTable | str | None:
    """Read a table.

    Args:
        path: a CSV file.
        title: its name for people.

    Returns:
        The table; a text that says what is wrong with it; None for a table of something else.
    """
    content = read_bytes(path)
    if not content.startswith((b"run,", b"runs,")):
        return None
    try:
        lines = [*csv.reader(io.StringIO(content.decode()), strict=True)]
        if any(len(line) != len(lines[0]) for line in lines):
            raise ValueError("rows of other lengths than its head")
        rows = [dict(zip(lines[0], map(_unescaped, line), strict=True)) for line in lines[1:]]
    except (ValueError, csv.Error) as error:
        return f"{path}: not readable: {error}; make it again"
    if "method" not in lines[0] or not rows:
        return None
    return PlainTable(title, rows, _shown(path, title, rows), content)


def _shown(path: Path, title: str, rows: list[dict[str, str]]) -> Table:
    """Return the columns for people from the Markdown beside a table, else all columns."""
    file = path.with_suffix(".md")
    try:
        text = read_bytes(file).decode() if file.is_file() else ""
    except (CembenchError, UnicodeDecodeError):
        text = ""
    lines = text.splitlines()
    table = [_cells(line) for line in lines if line.startswith("|")]
    name = lines[0].removeprefix("# ") if lines and lines[0].startswith("# ") else title
    if len(table) == len(rows) + 2 and len({*map(len, table)}) == 1:
        notes = [line for line in lines[1:] if line and not line.startswith(("|", "#"))]
        return _table(name, [plain_heading(one) for one in table[0]], table[2:], notes)
    return _table(name, list(rows[0]), [list(row.values()) for row in rows], [])


def _table(title: str, head: list[str], lines: list[list[str]], notes: list[str]) -> Table:
    numeric = [_told(column) for column in zip(*lines, strict=True)]
    rows = [
        [_cell(text) if number else Cell(text) for text, number in zip(line, numeric, strict=True)]
        for line in lines
    ]
    what, _, how = title.partition(";")
    return Table(what, head, rows, ". ".join(filter(None, [how.strip(), *notes])))


def _cells(line: str) -> list[str]:
    parts = re.split(r"(?<!\\)\|", line.strip())[1:-1]
    return [part.strip().replace("\\|", "|") for part in parts]


def _told(cells: Collection[str]) -> bool:
    """Return whether cells for people are figures."""
    known = [cell for cell in cells if cell not in ("", NOTHING)]
    return bool(known) and all(FIGURE.fullmatch(cell) for cell in known)


def _cell(text: str) -> Cell:
    found = FIGURE.fullmatch(text)
    if found is None:
        return Cell.of(math.nan, text)
    number = float(found[1].replace(",", ""))
    return Cell.of(number / 100 if "%" in text else number, text)


def _unescaped(cell: str) -> str:
    return ESCAPED.sub("", cell, count=1) if cell.startswith("'") else cell


def _numeric(cells: Collection[str]) -> bool:
    return all(NUMBER.fullmatch(cell) or cell in ("", "inf", "-inf") for cell in cells)


def _value(numeric: bool, cell: str) -> Value:
    if cell == "":
        return None
    if cell in ("True", "False"):
        return cell == "True"
    if not numeric or cell in ("inf", "-inf"):
        return cell
    return int(cell) if re.fullmatch(r"-?\d{1,15}", cell) else float(cell)

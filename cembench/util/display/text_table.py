"""Tables as aligned text, for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from itertools import zip_longest

from cembench.util.files.names import shown


def text_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], widest: int | None = None
) -> list[str]:
    """Return the lines of a table, two blanks between its columns; line breaks are escapes.

    Args:
        head: the headings.
        rows: as many cells each.
        widest: columns are at most that wide, and longer cells take several lines.
    """
    lines: list[Sequence[str]] = [[shown(cell) for cell in line] for line in (head, *rows)]
    if widest is not None:
        lines = [line for cells in lines for line in _wrapped(cells, widest)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = (map(str.ljust, line, widths) for line in lines)
    return ["  ".join(cells).rstrip() for cells in padded]


def _wrapped(cells: Sequence[str], widest: int) -> Iterator[tuple[str, ...]]:
    """Yield the lines of one row."""
    parts = [textwrap.wrap(cell, widest) or [""] for cell in cells]
    return zip_longest(*parts, fillvalue="")

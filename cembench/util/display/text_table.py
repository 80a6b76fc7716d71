"""Tables as aligned text, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table, two blanks between its columns.

    Args:
        head: the headings.
        rows: as many cells each.
    """
    lines = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = (map(str.ljust, line, widths) for line in lines)
    return ["  ".join(cells).rstrip() for cells in padded]

"""Cells of pictures: where the images of a grid, or of the steps of chains, lie in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

CELL, GAP, MARGIN, TOP = 32, 2, 80, 16  # pixels: a cell, between cells, left of them, above them
STEP, LINE = CELL + 16 + GAP, 12  # from one step of a chain to the next; a line of text below
COLUMNS = 8  # of a panel at most


@dataclass(frozen=True)
class Cells:
    """Cells of a picture, in panels side by side that each have the same rows and columns.

    Attributes:
        panels: number of panels.
        rows: rows of a panel.
        columns: columns of a panel.
        across: pixels from one column to the next.
        down: pixels from one row to the next.
        beside: pixels from one panel to the next.
    """

    panels: int
    rows: int
    columns: int
    across: int
    down: int
    beside: int

    def corner(self, panel: int, row: int, column: int) -> tuple[int, int]:
        """Return the left and the upper edge of a cell in pixels."""
        return MARGIN + panel * self.beside + column * self.across, TOP + row * self.down

    def corners(self) -> Iterator[tuple[int, int]]:
        """Return the corners of all cells."""
        for panel in range(self.panels):
            for row in range(self.rows):
                for column in range(self.columns):
                    yield self.corner(panel, row, column)


def grid_cells(width: int, height: int) -> Cells | None:
    """Return the cells of a grid of initial images, samples and nearest training images.

    None stands for a picture of another layout.
    """
    pitch, around = CELL + GAP, 8 * GAP
    rows, rest = divmod(height - TOP, pitch)
    for panels in (3, 2, 1):
        beside, uneven = divmod(width - MARGIN, panels)
        columns, odd = divmod(beside - around, pitch)
        if not (rest or uneven or odd) and 1 <= columns <= COLUMNS and rows > 0:
            return Cells(panels, rows, columns, pitch, pitch, beside)
    return None


def chain_cells(width: int, height: int) -> Cells | None:
    """Return the cells of a picture of chains, one row each; None for another layout."""
    down = CELL + 2 * LINE + GAP
    (columns, odd), (rows, rest) = divmod(width - MARGIN, STEP), divmod(height - 2 * TOP, down)
    return Cells(1, rows, columns, STEP, down, 0) if rows > 0 < columns and not odd + rest else None

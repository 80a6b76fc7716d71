"""Cells of pictures: where the images of a grid, of chains or of counterfactuals lie in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

CELL, GAP, MARGIN, TOP = 32, 2, 80, 16  # pixels: a cell, between cells, left of them, above them
STEP, LINE = CELL + 16 + GAP, 12  # from one step of a chain to the next; a line of text below
COLUMNS = 8  # of a panel at most
SIDE, ROW, LETTER, TEXT = 64, 10, 6, 11  # of rows: a cell, images, a letter, a line of text
TITLES = ("initial image", "sample", "nearest training image")
EDITED = {"original": 1, "counterfactual": 2, "difference, amplified": 0}  # lines of text below


@dataclass(frozen=True)
class Cells:
    """Cells of a picture, in panels that each have the same rows and columns.

    Attributes:
        titles: what each panel shows.
        origins: left and upper edge of the first cell of each panel, in pixels.
        rows: rows of a panel.
        columns: columns of a panel.
        across: pixels from one column to the next.
        down: pixels from one row to the next.
        side: pixels of a cell.
    """

    titles: Sequence[str]
    origins: Sequence[tuple[int, int]]
    rows: int
    columns: int
    across: int
    down: int
    side: int = CELL

    @property
    def panels(self) -> int:
        """The number of panels."""
        return len(self.origins)

    def corner(self, panel: int, row: int, column: int) -> tuple[int, int]:
        """Return the left and the upper edge of a cell in pixels."""
        left, top = self.origins[panel]
        return left + column * self.across, top + row * self.down

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
            origins = [(MARGIN + panel * beside, TOP) for panel in range(panels)]
            return Cells(TITLES[:panels], origins, rows, columns, pitch, pitch)
    return None


def chain_cells(width: int, height: int) -> Cells | None:
    """Return the cells of a picture of chains, one row each; None for another layout."""
    down = CELL + 2 * LINE + GAP
    (columns, odd), (rows, rest) = divmod(width - MARGIN, STEP), divmod(height - 2 * TOP, down)
    if odd or rest or rows < 1 or columns < 1:
        return None
    return Cells(("steps",), [(MARGIN, TOP)], rows, columns, STEP, down)


def edited_cells(width: int, height: int) -> Cells | None:
    """Return the cells of a picture of counterfactuals; None for another layout.

    Its panels are rows of the picture, which begin anew below each other.
    """
    left = row_margin(EDITED)
    for side in range(SIDE, 2 * SIDE + 1):
        heights = [row_height(side, lines) for lines in EDITED.values()]
        across, down = side + GAP, sum(heights) + 3 * GAP
        (columns, odd), (rows, rest) = divmod(width - left, across), divmod(height, down)
        if not (odd or rest) and rows > 0 and (columns == ROW or rows == 1 <= columns < ROW):
            origins = [(left, sum(heights[:panel])) for panel in range(len(heights))]
            return Cells(list(EDITED), origins, rows, columns, across, down, side)
    return None


def row_margin(titles: Iterable[str]) -> int:
    """Return the pixels to the left of rows, where their titles stand."""
    return LETTER * max(map(len, titles)) + 3 * GAP


def row_height(side: int, lines: int) -> int:
    """Return the height of a row whose cells have so many lines of text below them."""
    return side + GAP + TEXT * lines

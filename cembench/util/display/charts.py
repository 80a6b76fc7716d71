"""Charts and tables as data: what is shown, without anything that draws it.

A section of a protocol describes its panels with these classes. `cembench.reporting.plots` draws
them, `cembench.reporting.page` puts them on the page and `cembench plot` into files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Self

from cembench.util.display.format import NOTHING, missing

APART = re.compile(r"(\S+) (\(.+\)|± .+)")  # a value, and the uncertainty that belongs to it


@dataclass(frozen=True)
class Axis:
    """An axis of a panel.

    Attributes:
        label: what it shows; empty for no label.
        percent: whether values are proportions, to be shown in percent.
        better: the better direction, if there is one.
        integer: whether only whole numbers are marked.
        zero: whether it begins at zero.
    """

    label: str = ""
    percent: bool = False
    better: Literal["", "higher", "lower"] = ""
    integer: bool = False
    zero: bool = False


@dataclass(frozen=True)
class Series:
    """A line, or points: y over x, each y with its interval from low to high where it is known.

    The same name has the same colour in all panels of a chart.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclass(frozen=True)
class Lines:
    """Lines with a legend, and a band for each that has intervals.

    Attributes:
        series: the lines. Every panel of a chart names all of them, without values if need be.
        x: the horizontal axis.
        y: the vertical axis; very large values are shown on a logarithmic scale.
        marks: vertical reference lines, by what they mark.
        dots: whether each value has a dot.
    """

    series: Sequence[Series]
    x: Axis
    y: Axis
    title: str = ""
    marks: Mapping[str, float] = field(default_factory=dict)
    dots: bool = False


@dataclass(frozen=True)
class Diagonal:
    """Proportions over proportions with vertical intervals beside the diagonal, in percent.

    The panels of a chart share both axes; the note is below the title.
    """

    points: Series
    x: Axis
    y: Axis
    title: str = ""
    note: str = ""


@dataclass(frozen=True)
class Bar:
    """A value with its error, and the number of its colour."""

    name: str
    value: float
    error: float
    colour: int = 0


@dataclass(frozen=True)
class Bars:
    """Values with errors, one row per name; panels of a chart share the rows and the axis."""

    bars: Sequence[Bar]
    x: Axis
    title: str = ""


@dataclass(frozen=True)
class Point:
    """A point with an interval in both directions, from `x_low` to `x_high` and so on.

    Attributes:
        name: beside it, where there is room.
        front: whether it is on the Pareto front: filled, and joined with the others there.
        link: where a click leads, if anywhere.
        tip: what is said of a point with a link.
    """

    name: str
    x: float
    x_low: float
    x_high: float
    y: float
    y_low: float
    y_high: float
    front: bool = True
    link: str = ""
    tip: str = ""


@dataclass(frozen=True)
class Scatter:
    """Named points in a plane, with the front of those that no other beats."""

    points: Sequence[Point]
    x: Axis
    y: Axis
    marks: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its text, a smaller text below, the number to sort by, a mark.

    A number that is missing is NaN; None makes it a cell of text.
    """

    text: str
    note: str = ""
    number: float | None = None
    mark: str = ""

    @classmethod
    def of(cls, number: float | None, text: str) -> Self:
        """Return the cell of a number, from its text with an error or interval behind it."""
        if number is None or missing(number):
            return cls(text, number=math.nan)
        parts = APART.fullmatch(text)
        return cls(parts[1], parts[2].strip("()"), number) if parts else cls(text, "", number)

    @property
    def share(self) -> float | None:
        """The length of the bar behind a proportion; None for other cells."""
        bar = self.number is not None and self.text.endswith("%") and 0 <= self.number <= 1
        return self.number if bar else None


EMPTY = Cell.of(None, NOTHING)


@dataclass(frozen=True)
class Table:
    """A table. In a chart that compares runs the first cell of each row is the name of its run."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""

    def numeric(self, column: int) -> bool:
        """Return whether a column holds numbers."""
        return any(row[column].number is not None for row in self.rows)


@dataclass(frozen=True)
class Chart:
    """A figure of one or several panels, or a table, and how to read it.

    Attributes:
        kind: the part of the page that it belongs to, and the end of its file's name.
        heading: the heading of that part.
        caption: how to read it.
        panels: of one class.
        columns: panels in a row; one stands for a single wide panel.
        table: instead of panels; it is on the page alone.
    """

    kind: str
    heading: str
    caption: str
    panels: Sequence[Lines] | Sequence[Diagonal] | Sequence[Bars] | Sequence[Scatter] = ()
    columns: int = 1
    table: Table | None = None

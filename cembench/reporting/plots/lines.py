"""Panels of lines: accuracy over ε, loss and metrics over epochs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from cembench.reporting.plots import style
from cembench.util.display.charts import Lines, Series

BANDS = 8  # more bands would hide each other
STEEP = 100  # a value beyond is drawn on a logarithmic scale, or nothing else would be seen
TICKS = 4  # intervals between the ticks of an axis of a small panel at most
NARROW = 0.05  # a range whose ticks have more than two digits behind the point
WIDE, SMALL = (7.2, 4.0), (2.7, 2.3)  # inches of a single panel, and of one of several in a row


@style.look()
def draw_lines(panels: Sequence[Lines], columns: int) -> Figure:
    """Draw panels of lines, with one legend for all."""
    names = list(dict.fromkeys(one.name for panel in panels for one in panel.series))
    small = columns > 1
    margins = _margins(panels) if small and len(names) == 1 else None
    figure, places = style.grid(len(panels), columns, *(SMALL if small else WIDE), margins)
    drawn: dict[str, Line2D] = {}
    for axes, panel in zip(places, panels, strict=True):
        for one in panel.series:
            if len(one.x):
                drawn[one.name] = _line(axes, panel, one, names.index(one.name), len(names))
        axes.xaxis.set_major_locator(_ticks(small, panel.x.integer))
        axes.yaxis.set_major_locator(_ticks(small))
        _frame(axes, panel, quick=margins is not None)
    style.legend(figure, {one: drawn[one] for one in names if one in drawn})
    return figure


def _margins(panels: Sequence[Lines]) -> style.Margins:
    """Return room for titles, labels and the longest numbers of a chart without a legend."""
    digits = 0.25 if any(map(_long, panels)) else 0
    named = 0.2 if any(panel.y.label for panel in panels) else 0
    return style.Margins(0.45 + digits + named, 0.12, 0.45, 0.32)


def _long(panel: Lines) -> bool:
    """Return whether numbers beside a panel have many digits before or behind the point."""
    values = [y for one in panel.series for y in one.y if math.isfinite(y)]
    if panel.y.percent or not values:
        return False
    return max(map(abs, values)) >= STEEP or max(values) - min(values) < NARROW


def _line(axes: Axes, panel: Lines, one: Series, number: int, of: int) -> Line2D:
    factor, shade = style.scale(panel.y), style.colour(number)
    mark = style.marker(number) if panel.dots or len(one.x) == 1 else ""
    looks: dict[str, Any] = {"color": shade, "linestyle": style.dash(number), "marker": mark}
    looks["gid"] = style.part(number)
    (line,) = axes.plot(one.x, [factor * y for y in one.y], **looks)
    if len(one.low) and of <= BANDS:
        low, high = ([factor * end for end in ends] for ends in (one.low, one.high))
        axes.fill_between(one.x, low, high, color=shade, alpha=0.13, linewidth=0, gid=looks["gid"])
    return line


def _ticks(small: bool, integer: bool = False) -> MaxNLocator:
    if not small:
        return MaxNLocator("auto", steps=[1, 2, 2.5, 5, 10], integer=integer)  # as by default
    return MaxNLocator(TICKS, steps=[1, 2, 5, 10], integer=integer)


def _frame(axes: Axes, panel: Lines, *, quick: bool) -> None:
    for text, place in panel.marks.items():
        style.upright(axes, place, text)
    axes.set(xlabel=style.label(panel.x), ylabel=style.label(panel.y))
    if quick:  # nothing stands above the axes, so the title need not look for its place
        axes.ticklabel_format(style="plain", useOffset=False)
    axes.set_title(style.name(panel.title, 70), y=1 if quick else None)
    if panel.y.percent:
        axes.set_ylim(0, 102)
    elif any(abs(y) > STEEP for one in panel.series for y in one.y):
        axes.set_yscale("symlog", linthresh=STEEP / 10)
        axes.yaxis.set_major_formatter("{x:g}")
    if panel.x.zero:
        axes.set_xlim(left=0)

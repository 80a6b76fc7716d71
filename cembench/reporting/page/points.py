"""Points of a chart: where each value lies in the drawing, and what it is in words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from cembench.reporting.plots.style import colour, dash, scale
from cembench.util.display.charts import Axis, Bars, Chart, Diagonal, Lines, Scatter, Series

MOST = 60  # points of a line; of a longer one every second, third, … is told
INCH = 72  # units of an SVG
STYLES = {"-": "solid", "--": "dashed", ":": "dotted", "-.": "double"}  # of lines, in CSS
Panel = Lines | Diagonal | Bars | Scatter
Said = tuple[str, float, float, str]  # run, x, y, words; as drawn


@dataclass(frozen=True)
class Entry:
    """An entry of a legend: a run, the number of its colour, and the style of its line."""

    name: str
    colour: str
    style: str


def entries(chart: Chart) -> list[Entry]:
    """Return the legend of a chart; none where runs have panels of their own."""
    return [Entry(name, colour(n), STYLES[dash(n)]) for n, name in enumerate(_names(chart))]


def names(chart: Chart) -> list[str]:
    """Return the run of each number under which parts of a chart are drawn."""
    own = [one.title for one in chart.panels if isinstance(one, Bars | Diagonal)]
    return own or _names(chart)


def points(chart: Chart, figure: Figure) -> list[tuple[str, int, int, str]]:
    """Return run, x, y and words of each value of a chart, in the units of its SVG.

    The figure must have been rendered, so that its parts are in place.
    """
    found: list[tuple[str, int, int, str]] = []
    bars = (bar for panel in chart.panels if isinstance(panel, Bars) for bar in panel.bars)
    rows = list(dict.fromkeys(bar.name for bar in bars))
    size = figure.get_size_inches() * INCH
    panels: Sequence[Panel] = chart.panels
    for axes, panel in zip(figure.axes, panels, strict=False):
        for run, x, y, words in _said(panel, rows):
            if not (math.isfinite(x) and math.isfinite(y)):
                continue
            place = figure.transFigure.inverted().transform(axes.transData.transform((x, y)))
            across, up = place * size
            found.append((run, round(across), round(size[1] - up), words))
    return found


def _names(chart: Chart) -> list[str]:
    found: dict[str, None] = {}
    for panel in chart.panels:
        if isinstance(panel, Lines):
            found |= dict.fromkeys(one.name for one in panel.series)
        elif isinstance(panel, Scatter):
            found |= dict.fromkeys(one.name for one in panel.points)
    return list(found)


def _said(panel: Panel, rows: Sequence[str]) -> Iterator[Said]:
    if isinstance(panel, Lines):
        for one in panel.series:
            yield from _series(one.name, one, panel.x, panel.y, panel.title)
    elif isinstance(panel, Diagonal):
        yield from _series(panel.title, panel.points, panel.x, panel.y)
    elif isinstance(panel, Bars):
        for bar in panel.bars:
            words = f"{bar.name}: {bar.value:.3g} ± {bar.error:.2g}"
            yield panel.title, bar.value, rows.index(bar.name), words
    else:
        for point in panel.points:
            at = scale(panel.x) * point.x, scale(panel.y) * point.y
            yield point.name, *at, point.tip.removeprefix(f"{point.name}: ")


def _series(run: str, one: Series, x: Axis, y: Axis, title: str = "") -> Iterator[Said]:
    step = math.ceil(len(one.x) / MOST) or 1
    for n in range(0, len(one.x), step):
        ends = [_value(each[n], y) for each in (one.low, one.high) if len(each)]
        between = f" ({'–'.join(ends)})" if ends else ""
        across = f"{x.label} {_value(one.x[n], x)}"
        yield (
            run,
            scale(x) * one.x[n],
            scale(y) * one.y[n],
            f"{across}, {y.label or title}: {_value(one.y[n], y)}{between}",
        )


def _value(value: float, axis: Axis) -> str:
    return f"{100 * value:.1f} %" if axis.percent else f"{value:.4g}"

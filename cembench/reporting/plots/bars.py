"""Panels of values with errors: LSE f(x, ·) on several kinds of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cembench.reporting.plots.style import INK, colour, fit_titles, grid, label, look, name, part
from cembench.util.display.charts import Bar, Bars


@look()
def draw_bars(panels: Sequence[Bars], columns: int) -> Figure:
    """Draw values with errors around zero, one row per name."""
    names = list(dict.fromkeys(bar.name for panel in panels for bar in panel.bars))
    figure, places = grid(len(panels), columns, 2.5, 0.62 + 0.19 * len(names))
    titles = []
    for number, (axes, panel) in enumerate(zip(places, panels, strict=True)):
        axes.axvline(0, color=INK, alpha=0.5, linewidth=0.8)
        bars = {bar.name: bar for bar in panel.bars}
        for row, known in enumerate(names):
            if known in bars:
                _bar(axes, row, bars[known], part(number))
        titles.append(axes.set_title(name(panel.title), gid=part(number)))
        first = number % columns == 0
        axes.set_yticks(range(len(names)), [name(one) for one in names] if first else [])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.tick_params("y", length=0)
    figure.supxlabel(label(panels[0].x), fontsize=9)
    fit_titles(figure, titles)
    return figure


def _bar(axes: Axes, row: int, bar: Bar, own: str) -> None:
    ends, shade = (bar.value - bar.error, bar.value + bar.error), colour(bar.colour)
    looks: dict[str, Any] = {"color": shade, "gid": own}
    axes.plot(ends, [row, row], alpha=0.45, linewidth=3.2, solid_capstyle="butt", **looks)
    axes.plot([bar.value], [row], "o", **looks)

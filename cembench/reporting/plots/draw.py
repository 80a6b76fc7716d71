"""Drawing of charts: each class of panels has a function that draws it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from matplotlib.figure import Figure

from cembench.reporting.plots.bars import draw_bars
from cembench.reporting.plots.diagonal import draw_diagonal
from cembench.reporting.plots.lines import draw_lines
from cembench.reporting.plots.scatter import draw_scatter
from cembench.util.display.charts import Bars, Chart, Diagonal, Lines, Scatter

DRAWN: dict[type, Callable[[Any, int], Figure]] = {
    Lines: draw_lines,
    Diagonal: draw_diagonal,
    Bars: draw_bars,
    Scatter: draw_scatter,
}


def draw(chart: Chart) -> Figure:
    """Return the figure of a chart that has panels."""
    return DRAWN[type(chart.panels[0])](chart.panels, chart.columns)

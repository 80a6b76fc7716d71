"""Panels of points beside the diagonal: accuracy over confidence."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cembench.reporting.plots.style import INK, colour, fit_titles, grid, label, look, name, part
from cembench.util.display.charts import Diagonal, Series


@look()
def draw_diagonal(panels: Sequence[Diagonal], columns: int) -> Figure:
    """Draw points with vertical intervals, both axes in percent."""
    figure, places = grid(len(panels), columns, 2.0, 2.15)
    titles = []
    for number, (axes, panel) in enumerate(zip(places, panels, strict=True)):
        axes.plot([0, 100], [0, 100], color=INK, alpha=0.45, linewidth=0.8, linestyle="--")
        _points(axes, panel.points, part(number))
        title = axes.set_title(f"{name(panel.title)}\n{panel.note}", gid=part(number))
        titles.append(title)
        axes.set(xlim=(0, 103), ylim=(0, 103), xticks=(0, 50, 100), yticks=(0, 50, 100))
        axes.set_aspect("equal")
    figure.supxlabel(label(panels[0].x), fontsize=9)
    figure.supylabel(label(panels[0].y), fontsize=9)
    fit_titles(figure, titles)
    return figure


def _points(axes: Axes, points: Series, own: str) -> None:
    for x, y, *ends in zip(points.x, points.y, points.low, points.high, strict=True):
        ends = [100 * end for end in ends]
        axes.plot([100 * x, 100 * x], ends, color=colour(0), alpha=0.4, linewidth=1.2, gid=own)
        axes.plot([100 * x], [100 * y], "o", color=colour(0), markersize=3.5, gid=own)

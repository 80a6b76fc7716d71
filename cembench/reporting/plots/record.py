"""Charts of one record, for Python: accuracies with their intervals, and those of its sections."""

from __future__ import annotations

import io
from typing import Any

from matplotlib.figure import Figure

from cembench.evaluation.record import Record
from cembench.evaluation.sections import SECTIONS
from cembench.reporting.plots.draw import draw
from cembench.reporting.plots.style import NARROWEST, colour, label, look, name, scale
from cembench.util.display.charts import Axis, Chart
from cembench.util.errors import CembenchError
from cembench.util.settings import nearest

ACCURACY = "accuracy"


class NotebookFigure(Figure):
    """A figure that a notebook shows, whatever draws the figures of the user."""

    def _repr_png_(self) -> bytes:
        stream = io.BytesIO()
        with look():
            self.savefig(stream, format="png", dpi=100)
        return stream.getvalue()


def figure(record: Record, what: str) -> Figure:
    """Return a chart of a record.

    Args:
        record: the record.
        what: `accuracy`, or the kind of another chart.

    Raises:
        CembenchError: when it has no such chart.
    """
    known = _charts(record)
    kinds = [ACCURACY] * bool(record.accuracies) + list(known)
    if what not in kinds:
        raise CembenchError(f"{record.run} has no chart '{what}'; {nearest(what, kinds)}")
    drawn = _accuracies(record) if what == ACCURACY else draw(known[what])
    drawn.__class__ = NotebookFigure
    return drawn


def _charts(record: Record) -> dict[str, Chart]:
    found = (chart for one in SECTIONS for chart in one.panels({record.run: record}))
    return {chart.kind: chart for chart in found if chart.panels}


@look()
def _accuracies(record: Record) -> Figure:
    """Draw each accuracy as a point in its 95 % interval, one row each."""
    rates, axis = record.accuracies, Axis("accuracy", percent=True, better="higher")
    size = (NARROWEST + 1, 0.8 + 0.24 * len(rates))
    drawn = Figure(figsize=size, layout="constrained")
    axes = drawn.subplots()
    looks: dict[str, Any] = {"color": colour(0)}
    for row, rate in enumerate(rates.values()):
        ends = [scale(axis) * end for end in (rate.low, rate.high)]
        axes.plot(ends, [row, row], alpha=0.45, linewidth=3.2, solid_capstyle="butt", **looks)
        axes.plot([scale(axis) * rate.accuracy], [row], "o", **looks)
    axes.set_yticks(range(len(rates)), [name(one) for one in rates])
    axes.set_ylim(len(rates) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    axes.tick_params("y", length=0)
    axes.set_xlabel(label(axis))
    axes.set_title(name(f"{record.run} on {record.dataset}, {record.threat}", 60))
    return drawn

"""Lines over something: accuracy over ε, confidence and epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from cembench.evaluation.results import Calibration, CurvePoint, wilson
from cembench.reporting.plots.style import (
    INK,
    blank,
    colour,
    dash,
    fit_titles,
    legend,
    marker,
    name,
    panels,
    styled,
    upright,
)

BANDS = 8  # more bands would hide each other
STEEP = 100  # a loss beyond is drawn on a logarithmic scale, or nothing else would be seen
METRIC = "val_"


@styled
def radii(curves: Mapping[str, Sequence[CurvePoint]], eps: float, title: str = "") -> Figure:
    """Draw robust accuracy over ε, with 95 % bands and the radius of the threat model."""
    figure, lines = blank(7.2, 4.0), {}
    axes = figure.subplots()
    for number, (run, points) in enumerate(curves.items()):
        x = [point.eps for point in points]
        y = [100 * point.accuracy for point in points]
        lines[run] = _line(axes, number, x, y, marked=True)
        if len(curves) <= BANDS:
            low, high = ([100 * getattr(p, end) for p in points] for end in ("low", "high"))
            axes.fill_between(x, low, high, color=colour(number), alpha=0.13, linewidth=0)
    upright(axes, eps, f"threat model, {eps:.4g}")
    axes.set(xlabel="ε", ylabel="accuracy under attack, %", title=name(title, 70), ylim=(0, 102))
    axes.set_xlim(left=0)
    legend(figure, lines)
    return figure


def _line(axes: Axes, number: int, x: Any, y: Any, *, marked: bool) -> Line2D:
    mark = marker(number) if marked else ""
    return axes.plot(x, y, color=colour(number), linestyle=dash(number), marker=mark)[0]


@styled
def reliability(found: Mapping[str, Calibration]) -> Figure:
    """Draw accuracy over confidence, a panel a run, with 95 % Wilson intervals of each bin."""
    figure, places = panels(len(found), 4, 2.0, 2.15)
    titles = []
    for axes, (run, calibration) in zip(places, found.items(), strict=True):
        bins = [b for b in calibration.bins if b.accuracy is not None and b.confidence is not None]
        axes.plot([0, 100], [0, 100], color=INK, alpha=0.45, linewidth=0.8, linestyle="--")
        for b in bins:
            assert b.accuracy is not None and b.confidence is not None
            ends = wilson(round(b.accuracy * b.images), b.images)
            x = 100 * b.confidence
            axes.plot(
                [x, x], [100 * end for end in ends], color=colour(0), alpha=0.4, linewidth=1.2
            )
            axes.plot([x], [100 * b.accuracy], "o", color=colour(0), markersize=3.5)
        titles.append(axes.set_title(f"{name(run)}\nECE {100 * calibration.ece:.1f} %"))
        axes.set(xlim=(0, 103), ylim=(0, 103), xticks=(0, 50, 100), yticks=(0, 50, 100))
        axes.set_aspect("equal")
    figure.supxlabel("confidence, %", fontsize=9)
    figure.supylabel("accuracy, %", fontsize=9)
    fit_titles(figure, titles)
    return figure


@styled
def histories(frames: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw the loss and each validation figure over epochs, a line a run."""
    columns = [str(column) for frame in frames.values() for column in frame]
    metrics = dict.fromkeys(column for column in columns if column.startswith(METRIC))
    figure, places = panels(1 + len(metrics), 3, 2.7, 2.3)
    lines: dict[str, Line2D] = {}
    for axes, column in zip(places, [*metrics, "loss"], strict=True):
        scale = 100 if column.endswith("acc") else 1
        for number, (run, frame) in enumerate(frames.items()):
            if column in frame:
                values, marked = scale * frame[column], len(frame) == 1
                lines[run] = _line(axes, number, frame["epoch"], values, marked=marked)
        axes.set(title=_heading(column), xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if scale == 100:
            axes.set_ylim(0, 102)
        elif any(frame[column].abs().max() > STEEP for frame in frames.values() if column in frame):
            axes.set_yscale("symlog", linthresh=STEEP / 10)
            axes.yaxis.set_major_formatter("{x:g}")
    legend(figure, {run: lines[run] for run in frames})
    return figure


def _heading(column: str) -> str:
    if column == "loss":
        return "loss of training"
    words = column.removeprefix(METRIC).removesuffix("_acc").replace("_", " ")
    return f"validation: {words}" + (", %" if column.endswith("_acc") else "")

"""Robustness and generation as one plane: who is robust, who draws well, who does both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from cembench.reporting.plots.style import INK, blank, colour, marker, name, styled, upright

Z = 1.959964


@dataclass(frozen=True)
class Point:
    """A run in the plane.

    Attributes:
        run: its name.
        distance: KID of its samples, and its standard error.
        robust: accuracy under attack with its interval, shares.
        front: whether no other run beats it on both axes.
        link: where a click on it leads.
    """

    run: str
    distance: float
    error: float
    robust: float
    low: float
    high: float
    front: bool
    link: str = ""


@styled
def plane(
    points: Sequence[Point], distance: str, robust: str, marks: dict[str, float] | None = None
) -> Figure:
    """Draw robust accuracy over KID with 95 % intervals, and the Pareto front.

    Args:
        points: the runs.
        distance: what the distance is, with extractor and count.
        robust: which accuracy it is.
        marks: distances of other images, such as seeds, by name.
    """
    figure = blank(7.2, 4.6)
    axes = figure.subplots()
    front = sorted((p for p in points if p.front), key=lambda p: p.distance)
    x, y = [p.distance for p in front], [100 * p.robust for p in front]
    axes.plot(x, y, color=INK, alpha=0.35, linewidth=1.2, drawstyle="steps-post", zorder=1)
    for number, point in enumerate(points):
        _draw(axes, number, point)
    for text, value in (marks or {}).items():
        upright(axes, value, text)
    axes.set(xlabel=f"{distance}   ← better", ylabel=f"{robust}, %   better →")
    axes.margins(0.09)
    bottom, top = axes.get_ylim()
    axes.set_ylim(max(bottom, -4), min(top, 104))
    _label(figure, axes, points)
    return figure


def _draw(axes: Axes, number: int, point: Point) -> None:
    x, y, shade = point.distance, 100 * point.robust, colour(number)
    across = Z * point.error
    line: dict[str, Any] = {"color": shade, "alpha": 0.75, "linewidth": 1.1, "zorder": 2}
    axes.plot([x - across, x + across], [y, y], **line)
    axes.plot([x, x], [100 * point.low, 100 * point.high], **line)
    fill = shade if point.front else "none"
    dot = axes.scatter([x], [y], s=46, c=fill, marker=marker(number), edgecolors=shade, zorder=3)
    if point.link:
        dot.set_urls([point.link])


def _label(figure: Figure, axes: Axes, points: Sequence[Point]) -> None:
    """Name points where there is room, those of the front first; off intervals if possible."""
    figure.draw_without_rendering()
    taken = [_box(axes, (p.distance, 100 * p.robust), (p.distance, 100 * p.robust)) for p in points]
    bars = [bar for point in points for bar in _bars(axes, point)]
    for point in sorted(points, key=lambda p: (not p.front, p.distance)):
        text = axes.annotate(
            name(point.run),
            (point.distance, 100 * point.robust),
            (0, 0),
            textcoords="offset points",
            fontweight="bold" if point.front else "normal",
            url=point.link or None,
        )
        if not any(_settle(axes, text, boxes) for boxes in (taken + bars, taken)):
            text.remove()
            continue
        taken.append(text.get_window_extent())


def _bars(axes: Axes, point: Point) -> Iterator[Bbox]:
    x, y, across = point.distance, 100 * point.robust, Z * point.error
    yield _box(axes, (x - across, y), (x + across, y), 1)
    yield _box(axes, (x, 100 * point.low), (x, 100 * point.high), 1)


def _box(
    axes: Axes, low: tuple[float, float], high: tuple[float, float], around: float = 6
) -> Bbox:
    (x0, y0), (x1, y1) = axes.transData.transform([low, high])
    return Bbox.from_extents(x0 - around, y0 - around, x1 + around, y1 + around)


def _settle(axes: Axes, text: Annotation, taken: list[Bbox]) -> bool:
    """Move a label to the first place beside its point that is free, and tell if there is one."""
    for offset, side, height in _corners():
        text.set(position=offset, ha=side, va=height)
        box = text.get_window_extent()
        inside = axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1 and box.y1 <= axes.bbox.y1
        if inside and not any(box.overlaps(other) for other in taken):
            return True
    return False


def _corners() -> Iterator[tuple[tuple[int, int], str, str]]:
    for far in (6, 14, 24):
        yield from (
            ((far, 4), "left", "bottom"),
            ((-far, 4), "right", "bottom"),
            ((far, -4), "left", "top"),
            ((-far, -4), "right", "top"),
            ((0, far), "center", "bottom"),
            ((0, -far), "center", "top"),
        )

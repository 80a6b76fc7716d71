"""Panels of named points: robust accuracy over the distance of samples from real images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from cembench.reporting.plots import style
from cembench.util.display.charts import Point, Scatter

EDGE = 4  # percent below 0 and above 100 that are shown


@style.look()
def draw_scatter(panels: Sequence[Scatter], columns: int) -> Figure:
    """Draw points with their intervals, and a line along the front."""
    figure, places = style.grid(len(panels), columns, 7.2, 4.6)
    for axes, panel in zip(places, panels, strict=True):
        x, y = style.scale(panel.x), style.scale(panel.y)
        points = [_scaled(point, x, y) for point in panel.points]
        _panel(axes, panel, points)
        _name(figure, axes, points)
    return figure


def _scaled(point: Point, x: float, y: float) -> Point:
    across = {key: x * getattr(point, key) for key in ("x", "x_low", "x_high")}
    up = {key: y * getattr(point, key) for key in ("y", "y_low", "y_high")}
    return replace(point, **across, **up)


def _panel(axes: Axes, panel: Scatter, points: Sequence[Point]) -> None:
    front = sorted((p for p in points if p.front), key=lambda p: p.x)
    x, y = [p.x for p in front], [p.y for p in front]
    axes.plot(x, y, color=style.INK, alpha=0.35, linewidth=1.2, drawstyle="steps-post", zorder=1)
    for number, point in enumerate(points):
        _draw(axes, number, point)
    for text, place in panel.marks.items():
        style.upright(axes, place, text)
    axes.set(xlabel=style.label(panel.x), ylabel=style.label(panel.y))
    axes.margins(0.09)
    if panel.y.percent:
        bottom, top = axes.get_ylim()
        axes.set_ylim(max(bottom, -EDGE), min(top, 100 + EDGE))


def _draw(axes: Axes, number: int, point: Point) -> None:
    shade = style.colour(number)
    line: dict[str, Any] = {"color": shade, "alpha": 0.75, "linewidth": 1.1, "zorder": 2}
    line["gid"] = style.part(number)
    axes.plot([point.x_low, point.x_high], [point.y, point.y], **line)
    axes.plot([point.x, point.x], [point.y_low, point.y_high], **line)
    fill = shade if point.front else "none"
    looks: dict[str, Any] = {"marker": style.marker(number), "edgecolors": shade, "zorder": 3}
    looks["gid"] = line["gid"]
    dot = axes.scatter([point.x], [point.y], s=46, c=fill, **looks)
    if point.link:
        dot.set_urls([point.link])


def _name(figure: Figure, axes: Axes, points: Sequence[Point]) -> None:
    """Name points where there is room, those of the front first; off intervals if possible."""
    figure.draw_without_rendering()
    taken = [_box(axes, (p.x, p.y), (p.x, p.y)) for p in points]
    bars = [bar for point in points for bar in _bars(axes, point)]
    order = sorted(enumerate(points), key=lambda one: (not one[1].front, one[1].x))
    for number, point in order:
        text = axes.annotate(
            style.name(point.name),
            (point.x, point.y),
            (0, 0),
            textcoords="offset points",
            fontweight="bold" if point.front else "normal",
            url=point.link or None,
            gid=style.part(number),
        )
        if not any(_settle(axes, text, boxes) for boxes in (taken + bars, taken)):
            text.remove()
            continue
        taken.append(text.get_window_extent())


def _bars(axes: Axes, point: Point) -> Iterator[Bbox]:
    yield _box(axes, (point.x_low, point.y), (point.x_high, point.y), 1)
    yield _box(axes, (point.x, point.y_low), (point.x, point.y_high), 1)


def _box(
    axes: Axes, low: tuple[float, float], high: tuple[float, float], around: float = 6
) -> Bbox:
    (x0, y0), (x1, y1) = axes.transData.transform([low, high])
    return Bbox.from_extents(x0 - around, y0 - around, x1 + around, y1 + around)


def _settle(axes: Axes, text: Annotation, taken: list[Bbox]) -> bool:
    """Move a label to the first free place beside its point; return whether there is one."""
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

"""Charts of a set of runs as files for a paper."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

from cembench.reporting.leaderboard.board import slug
from cembench.reporting.page.charts import PlacedChart, charts
from cembench.reporting.page.panels import Panels, tell
from cembench.reporting.page.runs import gather
from cembench.reporting.plots.draw import draw
from cembench.reporting.plots.style import Format, render
from cembench.util.files import write_bytes


def write_plots(paths: Iterable[Path], out: Path, form: Format = "png") -> list[Path]:
    """Write every chart of the runs below `paths`, and copies of the pictures of their samples.

    A panel that cannot be made, since a file of it is damaged, is logged and left out.

    Returns:
        The files, all of which were drawn before the first was written.

    Raises:
        CembenchError: when a path holds no record, one is damaged, or a file cannot be written.
    """
    runs = [replace(run, anchor="") for run in gather(paths)]
    files: dict[Path, bytes] = {}
    panels = Panels()
    for placed in charts(runs):
        if placed.chart.panels:
            place = _free(files, out / f"{placed.stem}.{form}")
            drawn = panels.make(placed.stem, partial(_drawn, placed, form))
            files |= {} if drawn is None else {place: drawn}
    tell(panels.lines)
    for run in runs:
        for picture in run.pictures:
            place = out / "samples" / slug(run.record.run[:40], picture.file.name)
            files[_free(files, place)] = picture.content
    for file, content in files.items():
        write_bytes(file, content)
    return list(files)


def _drawn(placed: PlacedChart, form: Format) -> bytes:
    return render(draw(placed.chart), form)


def _free(taken: Container[Path], path: Path) -> Path:
    """Return a path that no other file has, since unlike names can give the same slug."""
    number, free = 2, path
    while free in taken:
        number, free = number + 1, path.with_stem(f"{path.stem}-{number}")
    return free

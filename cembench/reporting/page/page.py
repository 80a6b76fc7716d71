"""One page that needs nothing else: tables, charts, pictures and details of each run."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cembench.reporting.leaderboard import Board, rank
from cembench.reporting.leaderboard.published import published_board
from cembench.reporting.page import details
from cembench.reporting.page.charts import Chart, about, charts, groups, training
from cembench.reporting.page.pictures import Picture
from cembench.reporting.page.runs import Run, by_record, gather
from cembench.reporting.page.svg import inline
from cembench.reporting.page.tables import Table, densities, of_board
from cembench.util.errors import CembenchError
from cembench.util.files import write_text
from cembench.util.version import __version__

LIMIT = 5_000_000  # bytes of a page
SPARE = 200  # of what surrounds a part of it


def write_report(paths: Iterable[Path], out: Path, apart: Sequence[Board] = ()) -> Path:
    """Write `index.html` of all records below `paths` and return its path.

    Args:
        paths: run folders, or folders of them.
        out: the folder of the page.
        apart: boards of figures that others reported, besides what was published for the data sets.

    Raises:
        CembenchError: when a path holds no record, a file is damaged, the page cannot be written,
            or the tables alone are too much for one page.
    """
    runs = gather(paths)
    reported = published_board({run.record.dataset for run in runs})
    page = Page(runs, [*apart, *([] if reported is None else [reported])])
    path = out / "index.html"
    write_text(path, page.render())
    return path


@dataclass
class Page:
    """A page about to be written."""

    runs: list[Run]
    apart: Sequence[Board] = ()

    def render(self) -> str:
        """Return the page, with as many pictures as it can hold.

        Raises:
            CembenchError: when not even the tables fit.
        """
        room = LIMIT - len(self._filled({}).encode())
        if room < 0:
            raise CembenchError(
                f"{len(self.runs)} records are more than a page of {LIMIT // 10**6} MB holds; "
                "give fewer RUNS"
            )
        return self._filled(self._fitting(room))

    def _fitting(self, room: int) -> dict[int, Markup | str]:
        """Return charts and pictures that fit, by identity."""
        fitting: dict[int, Markup | str] = {}
        for thing in self._by_need():
            part = thing.uri() if isinstance(thing, Picture) else self._inline(thing)
            size = len(part.encode()) + SPARE
            if size <= room:
                room -= size
                fitting[id(thing)] = part
        return fitting

    def _by_need(self) -> list[Chart | Picture]:
        """Return what all runs share, the samples of lead samplers, and what is rather missed."""
        grids = [[p for p in run.pictures if not p.strip] for run in self.runs]
        strips = [picture for run in self.runs for picture in run.pictures if picture.strip]
        leads, others = [row[:1] for row in grids], [row[1:] for row in grids]
        return [*self.charts, *chain(*leads), *self.own.values(), *chain(*others), *strips]

    @cached_property
    def charts(self) -> list[Chart]:
        """The figures of several runs."""
        return list(charts(self.runs))

    @cached_property
    def own(self) -> dict[str, Chart]:
        """How the training of each run went, by its anchor."""
        found = {
            run.anchor: training([run], f"{run.anchor}-training", "Training") for run in self.runs
        }
        return {anchor: chart for anchor, chart in found.items() if chart is not None}

    def _inline(self, chart: Chart) -> Markup:
        label = f"{chart.title}. {chart.caption}"
        return inline(chart.figure, chart.stem, label, chart.tips)

    @cached_property
    def _content(self) -> dict[str, Any]:
        known = by_record(self.runs)
        boards = rank([run.record for run in self.runs])
        reported = "reported, not re-run"
        script = _asset("page.js")
        return {
            "runs": self.runs,
            "boards": [of_board(board, known) for board in boards],
            "apart": [of_board(board, known, reported) for board in self.apart],
            "densities": self._densities(),
            "charts": self.charts,
            "own": self.own,
            "samplers": self._samplers(),
            "details": details,
            "version": __version__,
            "dates": sorted(run.record.created[:10] for run in self.runs if run.record.created),
            "style": Markup(_asset("page.css")),
            "script": Markup(script),
            "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        }

    def _densities(self) -> list[Table]:
        found = [densities(about(board), group) for board, group in groups(self.runs)]
        return [table for table in found if table is not None]

    def _samplers(self) -> dict[str, list[tuple[Run, Picture, Picture | None]]]:
        """Return each sampler's pictures of all runs, with the one of its first chains."""
        found: dict[str, list[tuple[Run, Picture, Picture | None]]] = {}
        for run in self.runs:
            strips = {picture.sampler: picture for picture in run.pictures if picture.strip}
            for picture in run.pictures:
                if not picture.strip:
                    one = (run, picture, strips.get(picture.sampler))
                    found.setdefault(picture.sampler, []).append(one)
        return found

    def _filled(self, parts: dict[int, Markup | str]) -> str:
        def part(thing: object) -> Markup | str | None:
            return parts.get(id(thing))

        return _templates().get_template("page.html").render(self._content, part=part)


def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("cembench.reporting.page", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _asset(name: str) -> str:
    return files("cembench.reporting.page").joinpath("assets", name).read_text("utf-8")

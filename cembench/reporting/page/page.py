"""The page: tables, charts, pictures and details of each run in one HTML file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any

from markupsafe import Markup

from cembench.reporting import details
from cembench.reporting.leaderboard import Board, build_boards
from cembench.reporting.leaderboard.published import published_board
from cembench.reporting.page.charts import PlacedChart, charts, history
from cembench.reporting.page.images import COUNT, Sheet, load_sheet, lost, remove_outdated
from cembench.reporting.page.panels import Panels, tell
from cembench.reporting.page.pictures import Picture
from cembench.reporting.page.runs import Run, by_record, gather
from cembench.reporting.page.svg import drawn
from cembench.reporting.page.tables import of_board, of_chart
from cembench.reporting.page.templates import asset, script, templates
from cembench.util.errors import CembenchError
from cembench.util.files import write_bytes, write_text
from cembench.util.shared import sharing
from cembench.util.version import __version__

LIMIT = 8_000_000  # bytes of a page
SPARE = 200  # bytes of the markup around a chart or picture
SCRIPT = ("tables", "charts", "images", "samples", "save", "details", "theme")
Thing = PlacedChart | Picture | Sheet


def write_report(
    paths: Iterable[Path], out: Path, apart: Sequence[Board] = (), images: int = COUNT
) -> Path:
    """Write `index.html` of all records below `paths` and return its path.

    Args:
        paths: run folders, or folders of them.
        out: the folder of the page.
        apart: boards of figures that others reported, besides what was published for the data sets.
        images: images of each run at most that are shown with what attacks made of them, if its
            adversarial images were kept. What does not fit on the page lies in `out/images`, from
            where sheets of an earlier page are removed.

    A panel that cannot be made, since a file of it is damaged, is named on the page and logged.

    Raises:
        CembenchError: when a path holds no record, one is damaged, the page cannot be written, or
            the tables alone are too much for one page.
    """
    runs = gather(paths)
    reported = published_board({run.record.dataset for run in runs})
    page = Page(runs, [*apart, *([] if reported is None else [reported])], images)
    path, text = out / "index.html", page.render()
    for name, content in page.beside.items():
        write_bytes(out / name, content)
    write_text(path, text)
    remove_outdated(out, page.beside)
    return path


@dataclass
class Page:
    """A page about to be written.

    Attributes:
        runs: what it shows.
        apart: boards of figures that others reported.
        images: images of each run at most.
        panels: what could not be shown.
        beside: files that must lie beside it, by name.
    """

    runs: list[Run]
    apart: Sequence[Board] = ()
    images: int = COUNT
    panels: Panels = field(default_factory=Panels)
    beside: dict[str, bytes] = field(default_factory=dict)

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
        """Return charts and pictures that fit, by identity, and note those that lie beside."""
        fitting: dict[int, Markup | str] = {}
        for thing in self._by_need():
            for version in self._versions(thing):
                part = self.panels.make(_name(thing), version)
                if part is not None and len(part.encode()) + SPARE <= room:
                    room -= len(part.encode()) + SPARE
                    fitting[id(thing)] = part
                    break
        sheets = self.sheets.values()
        self.beside = {one.file: one.png for one in sheets if fitting.get(id(one)) == one.beside()}
        tell(self.panels.lines)
        return fitting

    def _versions(self, thing: Thing) -> list[Callable[[], Markup | str]]:
        """Return what can stand for a thing on the page, the best first."""
        if isinstance(thing, Sheet):
            return [thing.inside, thing.beside]
        return [thing.uri if isinstance(thing, Picture) else partial(drawn, thing)]

    @cached_property
    def sheets(self) -> dict[str, Sheet]:
        """The images of each run that has some, by its anchor."""
        found: dict[str, Sheet] = {}
        with sharing():
            for run in self.runs:
                work = partial(load_sheet, run.path, run.record, run.anchor, self.images)
                sheet = self.panels.make(_name(run), work)
                found |= {} if sheet is None else {run.anchor: sheet}
        return found

    def _by_need(self) -> list[Thing]:
        """Return charts and pictures, the most important first."""
        grids = [[p for p in run.pictures if not p.strip] for run in self.runs]
        strips = [picture for run in self.runs for picture in run.pictures if picture.strip]
        leads, others = [row[:1] for row in grids], [row[1:] for row in grids]
        shared = [placed for placed in self.charts if placed.chart.panels]
        found: list[Thing] = [*shared, *chain(*leads), *self.own.values()]
        found += [*chain(*others), *strips]
        return [*found, *self.sheets.values()]  # which need not lie on the page itself

    @cached_property
    def charts(self) -> list[PlacedChart]:
        """The charts and tables that compare runs."""
        return list(charts(self.runs))

    @cached_property
    def own(self) -> dict[str, PlacedChart]:
        """The training history of each run, by its anchor."""
        return {
            run.anchor: placed
            for run in self.runs
            for placed in history([run], f"{run.anchor}-training", "Training")
        }

    @cached_property
    def _content(self) -> dict[str, Any]:
        known = by_record(self.runs)
        boards = build_boards([run.record for run in self.runs])
        kinds = dict.fromkeys(placed.chart.kind for placed in self.charts)
        code = script(SCRIPT)
        return {
            "runs": self.runs,
            "boards": [of_board(board, known) for board in boards],
            "apart": [of_board(board, known, "reported, not re-run") for board in self.apart],
            "sections": {k: [p for p in self.charts if p.chart.kind == k] for k in kinds},
            "table_of": of_chart,
            "own": self.own,
            "sheets": self.sheets,
            "lost": lambda run: self.images > 0 and lost(run.path, run.record),
            "samplers": self._samplers(),
            "details": details,
            "version": __version__,
            "dates": sorted(run.record.created[:10] for run in self.runs if run.record.created),
            "style": Markup(asset("page.css")),
            "script": Markup(code),
            "script_hash": base64.b64encode(hashlib.sha256(code.encode()).digest()).decode(),
        }

    def _samplers(self) -> dict[str, list[tuple[Run, Picture, Picture | None]]]:
        """Return each sampler's pictures of all runs, with the one of its first chains."""
        found: dict[str, list[tuple[Run, Picture, Picture | None]]] = {}
        for run in self.runs:
            strips = {picture.sampler: picture for picture in run.pictures if picture.strip}
            for grid in (picture for picture in run.pictures if not picture.strip):
                found.setdefault(grid.sampler, []).append((run, grid, strips.get(grid.sampler)))
        return found

    def _filled(self, parts: dict[int, Markup | str]) -> str:
        template = templates().get_template("page.html")
        page = template.render(
            self._content,
            part=lambda thing: parts.get(id(thing)),
            broken=self._broken,
            beside=self.beside,
        )
        return page.encode(errors="backslashreplace").decode()  # paths need not be UTF-8

    def _broken(self, thing: Thing | Run) -> str:
        """Return why a chart, a picture, or the images of a run cannot be shown, if so."""
        return self.panels.problems.get(_name(thing), "")


def _name(thing: Thing | Run) -> str:
    if isinstance(thing, Run):
        return f"images of {thing.path}"
    return thing.stem if isinstance(thing, PlacedChart) else str(thing.file)

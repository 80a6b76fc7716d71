"""Charts of a set of runs, for the page and for files alike."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from matplotlib.figure import Figure

from cembench.evaluation import sections
from cembench.evaluation.section import Section
from cembench.reporting.leaderboard.board import Board, slug
from cembench.reporting.leaderboard.robustness import robust_boards
from cembench.reporting.page.plane import plane
from cembench.reporting.page.points import Entry, entries, names, points
from cembench.reporting.page.runs import Run, by_record, labelled
from cembench.reporting.page.training import training
from cembench.util.display.charts import Bars, Chart, Diagonal
from cembench.util.files.names import shown

PANELS = 12  # panels of single runs, where not all runs are drawn
Named = Mapping[str, Run]


@dataclass(frozen=True)
class PlacedChart:
    """A chart, its file name without ending, what its runs have in common, and the runs by name."""

    chart: Chart
    stem: str
    title: str
    runs: Named

    @property
    def anchors(self) -> list[str]:
        """The run of each number under which parts of the chart are drawn, by its anchor."""
        return [self._anchor(name) for name in names(self.chart)]

    @property
    def legend(self) -> list[tuple[Entry, str]]:
        """Each entry of the legend with the anchor of its run."""
        return [(entry, self._anchor(entry.name)) for entry in entries(self.chart)]

    def points(self, figure: Figure) -> str:
        """Return x, y and words of each value by run as JSON, once it is rendered."""
        told: dict[str, list[object]] = {}
        for run, x, y, words in points(self.chart, figure):
            told.setdefault(run, []).append([x, y, shown(words)])
        listed = [[shown(run), self._anchor(run), values] for run, values in told.items()]
        return json.dumps(listed, separators=(",", ":"), ensure_ascii=False)

    def _anchor(self, name: str) -> str:
        return self.runs[name].anchor if name in self.runs else ""


def charts(runs: Sequence[Run], most: int | None = None) -> Iterator[PlacedChart]:
    """Return all charts of runs: of those measured in the same way, then of their training.

    Args:
        runs: they are compared as far as they may be.
        most: runs in a chart at most: the first ones of the ranking, which its caption says; fewer
            where each has a panel of its own. Tables have all runs.
    """
    groups = _groups(runs)
    for board, named in groups:
        yield from _placed(plane(board, named, most), board, named, most)
    for section in sections.SECTIONS:
        for board, named in groups:
            yield from _placed(_panels(section, named, most), board, named, most)
    best = {id(run): run for _, named in groups for run in named.values()}  # colours by rank
    trained = {run.checkpoint: run for run in (best | {id(run): run for run in runs}).values()}
    alike: dict[tuple[str, str], list[Run]] = {}
    for run in trained.values():
        alike.setdefault((run.record.dataset, run.record.kind), []).append(run)
    for (dataset, kind), group in alike.items():
        known = [run for run in group if run.history is not None]
        for placed in history(known[:most], slug(dataset, kind, "training"), f"{dataset}, {kind}s"):
            yield replace(placed, chart=_saying(placed.chart, len(known), most))


def history(runs: Sequence[Run], stem: str, title: str) -> list[PlacedChart]:
    """Return the training history of runs; nothing where none is known."""
    named = {name: run for name, run in labelled(runs).items() if run.history is not None}
    known = {name: run.history for name, run in named.items() if run.history is not None}
    return [PlacedChart(chart, stem, title, named) for chart in training(known)]


def _groups(runs: Sequence[Run]) -> list[tuple[Board, Named]]:
    """Return classifiers that were measured in the same way, with the board that ranks them."""
    known = by_record(runs)
    boards = robust_boards([run.record for run in runs if run.record.kind == "classifier"])
    return [(board, labelled(known[id(record)] for (record,) in board.sources)) for board in boards]


def _panels(section: Section[Any, Any], named: Named, most: int | None) -> list[Chart]:
    """Return the tables of a section about all runs, and its panels about the first ones."""
    records = {name: run.record for name, run in named.items()}
    found = section.panels(records)
    if most is None or len(named) <= most or all(chart.table for chart in found):
        return found
    drawn = [c for c in section.panels(dict(islice(records.items(), most))) if not c.table]
    return [*(chart for chart in found if chart.table), *drawn]


def _placed(
    found: Sequence[Chart], board: Board, named: Named, most: int | None
) -> Iterator[PlacedChart]:
    title = board.title.partition(";")[0]
    for chart in found:
        told = chart if chart.table else _saying(chart, len(named), most)
        yield PlacedChart(told, f"{board.stem}-{chart.kind}", title, named)


def _saying(chart: Chart, count: int, most: int | None) -> Chart:
    """Return a chart whose caption says which runs are drawn, if not all."""
    own = bool(chart.panels) and isinstance(chart.panels[0], Bars | Diagonal)
    shown = most and min(most, PANELS if own else most)
    if shown is None or count <= shown:
        return chart
    front = " and the Pareto front" if chart.kind == "plane" else ""
    which = f"the first {shown} of {count} runs in the order of the ranking{front}"
    panels = chart.panels[:shown] if own else chart.panels
    return replace(chart, panels=panels, caption=f"{chart.caption} Drawn: {which}.")

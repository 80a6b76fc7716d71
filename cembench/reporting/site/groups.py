"""Groups of runs: those on one data set under one threat model share a page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from cembench.reporting.leaderboard import build_boards
from cembench.reporting.leaderboard.board import Board
from cembench.reporting.leaderboard.ranking import ROBUST, robust_attack
from cembench.reporting.page.runs import Run, by_record
from cembench.reporting.page.tables import LinkedTable
from cembench.reporting.site.names import page_name
from cembench.util.display.charts import EMPTY, Cell, Table
from cembench.util.display.format import with_error, with_interval

HEAD = ["run", "protocol", "images", "clean ↑", "robust ↑", "KID ↓", "measured"]


@dataclass(frozen=True)
class Group:
    """Runs on one data set under one threat model.

    Attributes:
        dataset: its title.
        threat: the threat model.
        runs: in the order of the ranking, those that are on no board of networks last.
        boards: all tables of them.
    """

    dataset: str
    threat: str
    runs: list[Run]
    boards: list[Board]

    @property
    def name(self) -> str:
        """The name of its page."""
        return f"{page_name(self.dataset)}-{self.threat.replace('/', '_')}"

    @property
    def title(self) -> str:
        """What all its runs have in common."""
        return f"{self.dataset}, {self.threat}"

    @property
    def methods(self) -> list[str]:
        """The methods of its runs, sorted."""
        return sorted({run.record.method for run in self.runs})

    @property
    def best(self) -> list[Cell]:
        """Run, accuracies and samples of the first run that was attacked; nothing without one."""
        attacked = (run for run in self.runs if robust_attack(run.record.figures))
        return next(([Cell(run.record.run), *_row(run)[3:6]] for run in attacked), [])


def groups(runs: Iterable[Run]) -> list[Group]:
    """Return all groups of runs, sorted by data set and threat model."""
    found: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        found.setdefault((run.record.dataset, str(run.record.threat)), []).append(run)
    return [_group(*key, found[key]) for key in sorted(found)]


def summary(title: str, runs: Sequence[Run]) -> LinkedTable:
    """Return a table of runs with their main figures."""
    table = Table(title, HEAD, [_row(run) for run in runs])
    return LinkedTable(table, [[run] for run in runs], page_name(title))


def _group(dataset: str, threat: str, runs: list[Run]) -> Group:
    boards, known = build_boards([run.record for run in runs]), by_record(runs)
    ranked = (row[0] for board in boards for row in board.sources if len(row) == 1)
    order = chain((known[id(record)] for record in ranked), runs)
    return Group(dataset, threat, list({id(run): run for run in order}.values()), boards)


def _row(run: Run) -> list[Cell]:
    record = run.record
    images = next((figure.images for figure in record.figures.values()), 0)
    return [
        Cell(record.run),
        Cell(str(record.protocol.get("name")), record.split),
        Cell.of(images, str(images)) if images else EMPTY,
        _accuracy(run, "clean"),
        _accuracy(run, robust_attack(record.figures)),
        _kid(run),
        Cell(record.created[:10]),
    ]


def _accuracy(run: Run, attack: str | None) -> Cell:
    figure = run.record.figures.get(attack or "")
    if figure is None:
        return EMPTY
    text = with_interval(figure.accuracy, figure.low, figure.high, ".1%")
    cell = Cell.of(figure.accuracy, text)
    return replace(cell, note=", ".join(filter(None, [cell.note, ROBUST.get(attack or "", "")])))


def _kid(run: Run) -> Cell:
    generation = run.record.generation
    title, found = next(iter(generation.samplers.items()), ("", None)) if generation else ("", None)
    if found is None or found.samples is None:
        return EMPTY
    cell = Cell.of(found.samples.kid, with_error(found.samples.kid, found.samples.kid_error))
    return replace(cell, note=f"{cell.note}, {title}")

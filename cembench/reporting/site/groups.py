"""Groups of runs: those on one data set under one threat model share a page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    def best(self) -> tuple[Run, list[Cell]] | None:
        """The first run on the first table of attacked test images, and its row; None without one.

        Validation images do not count, since settings may have been chosen by them.
        """
        tested = (run for run in self.runs if run.record.split == "test")
        attacked = (run for run in tested if robust_attack(run.record.figures))
        return next(((run, _row(run)) for run in attacked), None)

    @property
    def titles(self) -> list[str]:
        """What each table is about, with its protocols, which alone tell some apart."""
        return [_title(board) for board in self.boards]


def groups(runs: Iterable[Run]) -> list[Group]:
    """Return all groups of runs, sorted by data set and threat model."""
    found: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        found.setdefault((run.record.dataset, str(run.record.threat)), []).append(run)
    return [_group(*key, found[key]) for key in sorted(found)]


def summaries(group: Group, runs: Sequence[Run]) -> Iterator[LinkedTable]:
    """Yield tables of runs with their main figures: one for each board that ranks some of them.

    So rows of one table were measured in the same way. A run is on the first board that has it;
    those on none are on a last table.
    """
    left = by_record(runs)
    for board, title in zip(group.boards, group.titles, strict=True):
        if found := _alone(board, left):
            yield summary(title, found)
            for run in found:
                del left[id(run.record)]
    if left:
        yield summary(f"{group.title}, not ranked", list(left.values()))


def summary(title: str, runs: Sequence[Run]) -> LinkedTable:
    """Return a table of runs with their main figures."""
    table = Table(title, HEAD, [_row(run) for run in runs])
    return LinkedTable(table, [[run] for run in runs], page_name(title))


def _group(dataset: str, threat: str, runs: list[Run]) -> Group:
    boards, known = build_boards([run.record for run in runs]), by_record(runs)
    order = chain(*(_alone(board, known) for board in boards), runs)
    return Group(dataset, threat, list({id(run): run for run in order}.values()), boards)


def _alone(board: Board, known: Mapping[int, Run]) -> list[Run]:
    """Return the known runs that have rows of their own, each once, in the order of a board."""
    keys = dict.fromkeys(id(row[0]) for row in board.sources if len(row) == 1)
    return [known[key] for key in keys if key in known]


def _title(board: Board) -> str:
    what = board.title.partition(";")[0]
    names = sorted({str(one.protocol.get("name")) for row in board.sources for one in row})
    return what if "protocol " in what else f"{what}, protocol {', '.join(names)}"


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

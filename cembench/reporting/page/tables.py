"""Tables of a page: text for people, the number behind it for sorting."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from cembench.evaluation.sections.density import Density, EnergyShift, OODScores
from cembench.evaluation.statistics import MeanStd, Rate
from cembench.reporting.leaderboard.board import Board
from cembench.reporting.page.runs import Run, labelled

APART = re.compile(r"(\S+) (\(.+\)|± .+)")  # a figure, and the uncertainty that belongs to it


@dataclass(frozen=True)
class Cell:
    """A cell: its text, the smaller text below, the number to sort by (NaN for none), a mark."""

    text: str
    note: str = ""
    number: float | None = None
    mark: str = ""

    @property
    def share(self) -> float | None:
        """The length of a bar behind an accuracy."""
        bar = self.number is not None and self.text.endswith("%") and 0 <= self.number <= 1
        return self.number if bar else None


NONE = Cell("–", number=math.nan)
SEPARATION = ("AUROC ↑", "FPR95 ↓")


@dataclass(frozen=True)
class Row:
    """A row, and the runs that it is made of."""

    cells: Sequence[Cell]
    runs: Sequence[Run] = ()

    @property
    def marks(self) -> list[tuple[str, str]]:
        """What to be careful about, said once."""
        return list(dict.fromkeys(mark for run in self.runs for mark in run.marks))


@dataclass(frozen=True)
class Table:
    """A table under a title; `apart` says why it is not to be compared with others."""

    title: str
    head: Sequence[str]
    rows: Sequence[Row]
    note: str = ""
    apart: str = ""

    def numeric(self, column: int) -> bool:
        """Tell whether a column holds numbers."""
        return any(row.cells[column].number is not None for row in self.rows)


def of_board(board: Board, known: dict[int, Run], apart: str = "") -> Table:
    """Return a leaderboard, its rows with the runs behind them."""
    columns = [_column(board, heading) for heading in board.shown.columns]
    sources = board.sources or [()] * len(board.shown)
    rows = [
        Row(cells, [known[id(record)] for record in records if id(record) in known])
        for cells, records in zip(zip(*columns, strict=True), sources, strict=True)
    ]
    what, _, how = board.title.partition(";")
    return Table(what, list(map(str, board.shown.columns)), rows, how.strip(), apart)


def _column(board: Board, heading: str) -> list[Cell]:
    texts = [str(text) for text in board.shown[heading]]
    behind = board.numbers.get(heading, heading)
    numbers = _numbers(board.table[behind]) if behind in board.table else None
    if numbers is None:
        return [Cell(text) for text in texts]
    return [_cell(text, number) for text, number in zip(texts, numbers, strict=True)]


def _numbers(values: pd.Series) -> list[float] | None:
    """Return a column as numbers, NaN for none; None for one of texts."""
    known = values.dropna()
    if any(isinstance(value, str) for value in known):
        return None
    return [math.nan if pd.isna(value) else float(value) for value in values]


def _cell(text: str, number: float) -> Cell:
    parts = APART.fullmatch(text)
    if parts is None:
        return Cell(text, number=number)
    return Cell(parts[1], parts[2].strip("()"), number)


def number(value: float | None, form: str = "{:.3g}", note: str = "") -> Cell:
    """Return a cell of a number, or a dash where there is none."""
    if value is None:
        return NONE
    return Cell(form.format(value), note, value)


def densities(title: str, runs: Sequence[Run]) -> Table | None:
    """Return what networks say of p(x), a row a run; None where none says anything."""
    found = {
        name: (run, run.record.density)
        for name, run in labelled(runs).items()
        if run.record.density is not None
    }
    if not found:
        return None
    said = [density for _, density in found.values()]
    kinds = list(dict.fromkeys(kind for density in said for kind in density.energies))
    pushes = list(dict.fromkeys(push for density in said for push in density.pushed))
    pairs = [(t, s) for density in said for t, scores in density.outside.items() for s in scores]
    scores = list(dict.fromkeys(pairs))
    head = ["run", *(f"LSE {kind}" for kind in kinds), "ECE ↓"]
    head += [f"{push.upper()} in the ball: {what}" for push in pushes for what in ("acc", "Δ LSE")]
    head += [f"{t}, {s}: {what}" for t, s in scores for what in SEPARATION]
    rows = [
        Row([Cell(name), *_density(density, kinds, pushes, scores)], [run])
        for name, (run, density) in found.items()
    ]
    note = (
        "LSE f(x, ·): mean ± deviation over images. PGD and TA: test images pushed inside the "
        "ball, accuracy with its 95 % interval and mean change of LSE ± standard error. AUROC and "
        "FPR95: test images told from others."
    )
    return Table(title, head, rows, note)


def _density(
    density: Density, kinds: list[str], pushes: list[str], scores: list[tuple[str, str]]
) -> list[Cell]:
    cells = [spread(density.energies.get(kind)) for kind in kinds]
    cells.append(number(density.calibration.ece, "{:.1%}"))
    for name in pushes:
        push = density.pushed.get(name)
        cells += [NONE, NONE] if push is None else [share(push.accuracy)[0], change(push)]
    for title, score in scores:
        apart = density.outside.get(title, {}).get(score)
        cells += [NONE, NONE] if apart is None else separation(apart)
    return cells


def share(rate: Rate) -> list[Cell]:
    """Return a share with its interval, and its count."""
    note = f"{rate.low:.1%}–{rate.high:.1%}"
    return [number(rate.accuracy, "{:.1%}", note), Cell(f"{rate.correct} of {rate.images}")]


def change(push: EnergyShift) -> Cell:
    """Return the mean change of LSE with its standard error."""
    return number(push.lse_change, "{:+.3g}", f"± {push.lse_error:.2g}")


def separation(found: OODScores) -> list[Cell]:
    """Return the columns `SEPARATION`."""
    return [number(found.auroc, "{:.3f}"), number(found.fpr95, "{:.1%}")]


def spread(found: MeanStd | None) -> Cell:
    """Return mean and deviation."""
    if found is None:
        return NONE
    return number(found.mean, "{:.2f}", f"± {found.std:.2g}")

"""Common corruptions as charts and tables: accuracy and density over the severity."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from cembench.evaluation.section import rate_cells
from cembench.evaluation.sections.corruption_results import (
    CorruptedImages,
    Corruptions,
    MeanAccuracy,
    SeverityFigures,
)
from cembench.evaluation.statistics import Rate
from cembench.util.display.charts import EMPTY, Axis, Cell, Chart, Lines, Series, Table
from cembench.util.display.format import number, percent, with_interval

HEADING = "Corruptions"
LINES = (
    "Mean over the corruptions at each severity; severity 0 is the image without corruption, in 8 "
    "bits. Left: accuracy, with 95 % intervals over images for up to eight runs. Right: the "
    "probability that a clean image has a higher log p(x) than a corrupted one; at 0.5 the density "
    "does not tell them apart."
)
TABLE = (
    "Accuracy under each corruption, mean over the severities. Worst case: images that are "
    "classified correctly under every corruption at the highest severity. AUROC: clean images told "
    "from corrupted ones by LSE f(x, ·), mean over corruptions and severities."
)


def panels(found: Mapping[str, Corruptions]) -> list[Chart]:
    """Return the lines over the severity, and the table of accuracies, by name of the run."""
    x = Axis("severity", integer=True, zero=True)
    accuracy = [_accuracies(name, one) for name, one in found.items()]
    density = [
        Series(name, [0, *map(int, one.severities)], [0.5, *(s.auroc for s in _each(one))])
        for name, one in found.items()
    ]
    lines = [
        Lines(accuracy, x, Axis("accuracy", percent=True), "Accuracy", dots=True),
        Lines(density, x, Axis("AUROC of log p(x)"), "Density", dots=True),
    ]
    return [
        Chart("corruptions", HEADING, LINES, lines, columns=2),
        Chart("corruptions", HEADING, TABLE, table=_compared(found)),
    ]


def _each(one: Corruptions) -> Sequence[SeverityFigures]:
    return list(one.severities.values())


def _accuracies(name: str, one: Corruptions) -> Series:
    points: list[Rate | MeanAccuracy] = [one.clean, *(s.mean for s in _each(one))]
    return Series(
        name,
        x=[0, *map(int, one.severities)],
        y=[point.accuracy for point in points],
        low=[point.low for point in points],
        high=[point.high for point in points],
    )


def _compared(found: Mapping[str, Corruptions]) -> Table:
    names = list(dict.fromkeys(name for one in found.values() for name in one.cells))
    head = ["run", "clean ↑", "mean ↑", "mCE ↓", "worst case ↑", "AUROC of log p(x)"]
    rows = [
        [
            Cell(run),
            rate_cells(one.clean)[0],
            _mean(one.mean),
            _error(one.mce),
            rate_cells(_each(one)[-1].worst_case)[0],
            Cell.of(one.auroc, number(one.auroc, ".3f")),
            *(_accuracy(one, name) for name in names),
        ]
        for run, one in found.items()
    ]
    return Table(HEADING, [*head, *(name.replace("_", " ") for name in names)], rows)


def _mean(mean: MeanAccuracy) -> Cell:
    return Cell.of(mean.accuracy, with_interval(mean.accuracy, mean.low, mean.high, ".1%"))


def _error(mce: float | None) -> Cell:
    return EMPTY if mce is None else Cell.of(mce, percent(mce))


def _accuracy(one: Corruptions, name: str) -> Cell:
    found = one.accuracy(name) if name in one.cells else None
    return Cell.of(found, percent(found))


def details(one: Corruptions) -> list[Table]:
    """Return accuracy and density by corruption and severity, the means first."""
    levels = list(one.severities)
    head = ["corruption", *(f"severity {level}" for level in levels)]
    note = f"{one.title}: parameters of {one.source}; {percent(one.clean.accuracy)} without"
    note += f" corruption. The mean is over {len(one.counted)} corruptions"
    if one.left_out:
        note += f"; without {', '.join(one.left_out)}, for which `cembench[corruptions]` is needed"
    means = [
        [Cell("mean"), *(_mean(s.mean) for s in _each(one))],
        [Cell("worst case"), *(rate_cells(s.worst_case)[0] for s in _each(one))],
    ]
    accuracy = _rows(one, lambda cell: Cell.of(cell.accuracy, percent(cell.accuracy)))
    lse = _rows(one, lambda cell: Cell.of(cell.lse.mean, number(cell.lse.mean)))
    told = _rows(one, lambda cell: Cell.of(cell.auroc, number(cell.auroc, ".3f")))
    changes = [
        Cell("mean change"),
        *(Cell.of(s.lse_change, number(s.lse_change)) for s in _each(one)),
    ]
    aurocs = [Cell("mean"), *(Cell.of(s.auroc, number(s.auroc, ".3f")) for s in _each(one))]
    clean = f"Mean over images; {number(one.clean_lse.mean)} without corruption."
    auroc = "Probability that a clean image has a higher LSE than a corrupted one."
    return [
        Table("Accuracy under corruptions", head, [*means, *accuracy], f"{note}."),
        Table("LSE f(x, ·) of corrupted images", head, [changes, *lse], clean),
        Table("Clean images told from corrupted ones (AUROC)", head, [aurocs, *told], auroc),
    ]


def _rows(one: Corruptions, cell: Callable[[CorruptedImages], Cell]) -> list[list[Cell]]:
    return [
        [Cell(name.replace("_", " ")), *map(cell, cells.values())]
        for name, cells in one.cells.items()
    ]

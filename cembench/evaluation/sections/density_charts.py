"""Energies, calibration and out-of-distribution scores as charts and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cembench.evaluation.section import rate_cells
from cembench.evaluation.sections.density_results import (
    Bin,
    Calibration,
    Density,
    EnergyShift,
    OODScores,
)
from cembench.evaluation.statistics import MeanStd, wilson
from cembench.util.display.charts import (
    EMPTY,
    Axis,
    Bar,
    Bars,
    Cell,
    Chart,
    Diagonal,
    Series,
    Table,
)
from cembench.util.display.format import number, percent, with_error

COLOURS = {"clean": 0, "pgd": 1, "ta": 4, "noise": 6}
SEPARATION = ("AUROC ↑", "FPR95 ↓")
ENERGIES = (
    "LSE f(x, ·) = log p(x) + log Z for each kind of images: mean ± standard deviation. log Z "
    "differs between networks and is unknown, so values are relative to the mean of clean images."
)
CALIBRATION = "Accuracy over confidence, with the 95 % Wilson interval of each bin."
TABLE = (
    "LSE f(x, ·): mean ± standard deviation over images. PGD and TA: test images attacked within "
    "the ball, accuracy with its 95 % interval and mean change of LSE ± standard error. AUROC and "
    "FPR95: test images told from out-of-distribution images; where these are attacked, PGD raises "
    "their score. NLL and Brier score: of the label, on test images."
)


def panels(found: Mapping[str, Density]) -> list[Chart]:
    """Return energies, the table of everything, and calibration, by name of the run."""
    bars = [energies(name, density.energies) for name, density in found.items()]
    bins = [reliability(name, density.calibration) for name, density in found.items()]
    return [
        Chart("energies", "Energies", ENERGIES, bars, columns=3),
        Chart("energies", "Energies", TABLE, table=_compared(found)),
        Chart("calibration", "Calibration", CALIBRATION, bins, columns=4),
    ]


def energies(title: str, found: Mapping[str, MeanStd]) -> Bars:
    """Return mean and deviation for each kind of images, relative to the mean of clean images."""
    zero = found["clean"].mean if "clean" in found else 0.0
    bars = [Bar(kind, one.mean - zero, one.std, _colour(kind)) for kind, one in found.items()]
    return Bars(bars, Axis("LSE f(x, ·) above its mean on clean images, ± 1 deviation"), title)


def _colour(kind: str) -> int:
    """Return a colour each for test images, attacked, out-of-distribution and initial images."""
    return COLOURS.get(kind, 5 if kind.endswith(" seeds") else 2)


def reliability(title: str, found: Calibration) -> Diagonal:
    """Return accuracy over confidence, one point per bin that has images."""
    bins = [(b, b.confidence, b.accuracy) for b in found.bins]
    known = [(b, x, y) for b, x, y in bins if x is not None and y is not None]
    ends = [wilson(round(y * b.images), b.images) for b, _, y in known]
    places, heights = [x for _, x, _ in known], [y for _, _, y in known]
    series = Series(title, places, heights, [low for low, _ in ends], [high for _, high in ends])
    axes = Axis("confidence", percent=True), Axis("accuracy", percent=True)
    return Diagonal(series, *axes, title, f"ECE {100 * found.ece:.1f} %")


def _compared(found: Mapping[str, Density]) -> Table:
    said = found.values()
    kinds = list(dict.fromkeys(kind for density in said for kind in density.energies))
    pushes = list(dict.fromkeys(push for density in said for push in density.pushed))
    sets = [one for density in said for one in density.separations.items()]
    pairs = [(title, score) for title, scores in sets for score in scores]
    scores = list(dict.fromkeys(pairs))
    head = ["run", *(f"LSE {kind}" for kind in kinds), "ECE ↓", "NLL ↓", "Brier ↓"]
    head += [f"{push.upper()} in the ball: {what}" for push in pushes for what in ("acc", "Δ LSE")]
    head += [f"{t}, {s}: {what}" for t, s in scores for what in SEPARATION]
    rows = [[Cell(name), *_row(density, kinds, pushes, scores)] for name, density in found.items()]
    return Table("Energies", head, rows)


def _row(
    density: Density, kinds: Sequence[str], pushes: Sequence[str], scores: Sequence[tuple[str, str]]
) -> list[Cell]:
    cells = [_energy(density.energies.get(kind)) for kind in kinds]
    cells.append(Cell.of(density.calibration.ece, percent(density.calibration.ece)))
    cells += [_proper(score) for score in (density.nll, density.brier)]
    for name in pushes:
        push = density.pushed.get(name)
        cells += [EMPTY, EMPTY] if push is None else [rate_cells(push.accuracy)[0], _change(push)]
    for title, score in scores:
        apart = density.separations.get(title, {}).get(score)
        cells += [EMPTY, EMPTY] if apart is None else _separation(apart)
    return cells


def _energy(found: MeanStd | None) -> Cell:
    return EMPTY if found is None else Cell.of(found.mean, with_error(found.mean, found.std, ".2f"))


def _proper(found: MeanStd | None) -> Cell:
    return EMPTY if found is None else Cell.of(found.mean, number(found.mean))


def _change(push: EnergyShift) -> Cell:
    return Cell.of(push.lse_change, with_error(push.lse_change, push.lse_error, "+.3g"))


def _separation(found: OODScores) -> list[Cell]:
    auroc = Cell.of(found.auroc, number(found.auroc, ".3f"))
    return [auroc, Cell.of(found.fpr95, percent(found.fpr95))]


def details(density: Density) -> list[Table]:
    """Return tables of energies, attacks in the ball, out-of-distribution scores, calibration."""
    kinds = [[Cell(k), _energy(one), Cell(str(one.images))] for k, one in density.energies.items()]
    pushed = [
        [Cell(name.upper()), *rate_cells(push.accuracy), _change(push)]
        for name, push in density.pushed.items()
    ]
    outside = [
        [Cell(f"{title}, by {score}"), *_separation(one), Cell(str(one.others))]
        for title, scores in density.separations.items()
        for score, one in scores.items()
    ]
    bins = [_bin(one) for one in density.calibration.bins if one.images]
    error = f"Expected calibration error {percent(density.calibration.ece, 2)}."
    names = {"nll": "Negative log-likelihood", "brier": "Brier score"}
    for key, score in density.proper_scores.items():
        error += f" {names[key]} {number(score.mean)}."
    attacked = ["attack", "accuracy", "correct", "mean change of LSE"]
    others = ["images", *SEPARATION, "count"]
    tables = [
        Table("Energies", ["images", "LSE f(x, ·)", "count"], kinds),
        Table("PGD and TA in the ball", attacked, pushed),
        Table("Out-of-distribution detection", others, outside),
        Table("Calibration", ["confidence", "mean", "accuracy", "images"], bins, error),
    ]
    return [table for table in tables if table.rows]


def _bin(one: Bin) -> list[Cell]:
    values = [Cell.of(value, percent(value)) for value in (one.confidence, one.accuracy)]
    return [Cell(f"{one.low:.2f}–{one.high:.2f}"), *values, Cell(str(one.images))]

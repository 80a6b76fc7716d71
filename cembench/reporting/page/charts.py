"""Which figures a set of runs gives, for a page and for files alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from matplotlib.figure import Figure

from cembench.reporting.leaderboard.board import Board, slug
from cembench.reporting.leaderboard.robustness import lead_of, robust_boards
from cembench.reporting.page.runs import Run, by_record, labelled
from cembench.reporting.plots.curves import histories, radii, reliability
from cembench.reporting.plots.energies import energies
from cembench.reporting.plots.pareto import Point, plane


@dataclass(frozen=True)
class Chart:
    """A figure and what to say of it.

    Attributes:
        kind: `plane`, `curves`, `energies`, `calibration` or `training`.
        stem: its file name without ending.
        title: what all that it shows has in common.
        caption: how to read it.
        figure: the figure.
        tips: by link, what to say of a point.
    """

    kind: str
    stem: str
    title: str
    caption: str
    figure: Figure
    tips: dict[str, str] = field(default_factory=dict)


def charts(runs: Sequence[Run]) -> Iterator[Chart]:
    """Return all figures of runs; those of one were measured in the same way."""
    ranked = groups(runs)
    for board, group in ranked:
        for chart in (_plane(board, group), _curves(board, group), *_densities(board, group)):
            if chart is not None:
                yield chart
    best = {id(run): run for _, group in ranked for run in group}  # each has one colour throughout
    folders = {run.folder: run for run in (best | {id(run): run for run in runs}).values()}
    alike: dict[tuple[str, str], list[Run]] = {}
    for run in folders.values():
        alike.setdefault((run.record.dataset, run.record.kind), []).append(run)
    for (dataset, kind), group in alike.items():
        chart = training(group, slug(dataset, kind, "training"), f"{dataset}, {kind}s")
        if chart is not None:
            yield chart


def groups(runs: Sequence[Run]) -> list[tuple[Board, list[Run]]]:
    """Return classifiers that were measured in the same way, with the board that ranks them."""
    known = by_record(runs)
    boards = robust_boards([run.record for run in runs if run.record.kind == "classifier"])
    return [(board, [known[id(record)] for (record,) in board.sources]) for board in boards]


def about(board: Board) -> str:
    """Return what all rows of a board have in common, in a few words."""
    return board.title.partition(";")[0]


def training(runs: Sequence[Run], stem: str, title: str) -> Chart | None:
    """Return how training went, if anything is known of it."""
    frames = {name: run.history for name, run in labelled(runs).items() if run.history is not None}
    if not frames:
        return None
    caption = (
        "Loss and validation figures over epochs. Losses of unlike methods are of unlike "
        "objectives: their heights do not compare."
    )
    return Chart("training", stem, title, caption, histories(frames))


def _plane(board: Board, group: list[Run]) -> Chart | None:
    drawn = [run.record.generation for run in group if run.record.generation is not None]
    if not drawn:
        return None
    lead, title = lead_of(drawn[0]), next(iter(drawn[0].samplers))
    rows = zip(board.table.to_dict("records"), labelled(group).items(), strict=True)
    points = [
        point
        for row, (name, run) in rows
        if (point := _point({str(k): v for k, v in row.items()}, lead, name, run)) is not None
    ]
    if not points:
        return None
    leads = [found.samplers[title] for found in drawn if title in found.samplers]
    seeds = {found.seeds.kid for found in leads if found.seeds is not None}
    marks = {"real images": floor.kid} if (floor := drawn[0].floor) is not None else {}
    marks |= {"seeds": seeds.pop()} if len(seeds) == 1 else {}
    extractor = f"{drawn[0].extractor}, n = {drawn[0].count}"
    robust = "AutoAttack" if "autoattack_acc" in board.numbers.values() else "worst-case"
    figure = plane(points, f"KID of {title} ({extractor})", f"{robust} accuracy", marks)
    caption = (
        "Robust accuracy over the KID of the lead sampler, each with its 95 % interval. Filled: "
        "no other run is at least as good on both axes and better on one; the line joins them. "
        "Vertical lines: what real images and the seeds of the chains score."
    )
    tips = {point.link: _tip(point) for point in points if point.link}
    return Chart("plane", f"{board.stem}-plane", about(board), caption, figure, tips)


def _point(row: dict[str, object], lead: str, name: str, run: Run) -> Point | None:
    def value(column: str) -> float:
        return float(str(row[column]))

    kid, attacks = f"{lead}_kid", ("autoattack_acc", "worst_case_acc")
    robust = next((column for column in attacks if _known(row.get(column))), None)
    if robust is None or not _known(row.get(kid)):
        return None
    return Point(
        name,
        distance=value(kid),
        error=value(f"{kid}_error"),
        robust=value(robust),
        low=value(f"{robust}_low"),
        high=value(f"{robust}_high"),
        front=row["pareto"] is True,
        link=run.link,
    )


def _known(value: object) -> bool:
    return value is not None and value == value


def _tip(point: Point) -> str:
    return f"{point.run}: {point.robust:.1%}, KID {point.distance:.3g} ± {point.error:.2g}"


def _curves(board: Board, group: list[Run]) -> Chart | None:
    curves = {name: run.record.curve for name, run in labelled(group).items() if run.record.curve}
    if not curves:
        return None
    caption = (
        "Images that stand at rising radii; each is attacked until something breaks it. "
        "Bands, drawn for up to eight runs: 95 % Wilson intervals."
    )
    figure = radii(curves, group[0].record.threat.eps)
    return Chart("curves", f"{board.stem}-curves", about(board), caption, figure)


def _densities(board: Board, group: list[Run]) -> Iterator[Chart]:
    found = {
        name: run.record.density
        for name, run in labelled(group).items()
        if run.record.density is not None
    }
    if not found:
        return
    caption = (
        "LSE f(x, ·) = log p(x) + log Z on each kind of images: mean and deviation over images. "
        "log Z of each network is unknown, so zero is its mean on clean images."
    )
    figure = energies({name: density.energies for name, density in found.items()})
    yield Chart("energies", f"{board.stem}-energies", about(board), caption, figure)
    caption = "Accuracy over confidence, with 95 % Wilson intervals of each bin."
    figure = reliability({name: density.calibration for name, density in found.items()})
    yield Chart("calibration", f"{board.stem}-calibration", about(board), caption, figure)

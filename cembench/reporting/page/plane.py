"""The robustness-generation plane: robust accuracy over the KID of samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cembench.evaluation.sections.samples import Generation
from cembench.reporting.leaderboard.board import Board
from cembench.reporting.leaderboard.ranking import ROBUST, lead_column, robust_attack
from cembench.reporting.page.runs import Run
from cembench.util.display.charts import Axis, Chart, Point, Scatter
from cembench.util.display.column import Column
from cembench.util.display.format import missing, percent, with_error

Z = 1.959964
CAPTION = (
    "Robust accuracy over the KID of the lead sampler, each with its 95 % interval. Filled points "
    "and the line through them: the Pareto front, where no other run is at least as good on both "
    "axes and better on one. Vertical lines: KID of real images and of initial images."
)


def plane(board: Board, runs: Mapping[str, Run], most: int | None = None) -> list[Chart]:
    """Return the plane of a board, whose rows are these runs; none without samples.

    Of more runs than `most`, the first ones are drawn, with all of the Pareto front.
    """
    drawn = [run.record.generation for run in runs.values() if run.record.generation is not None]
    lead = lead_column(run.record for run in runs.values())
    if lead is None:
        return []
    rows = zip(board.table.to_dict("records"), runs.items(), strict=True)
    found = [_point({str(k): v for k, v in row.items()}, lead, *named) for row, named in rows]
    points = [
        point
        for place, point in enumerate(found)
        if point is not None and (most is None or place < most or point.front)
    ]
    if not points:
        return []
    attack = robust_attack({name for run in runs.values() for name in run.record.figures})
    x = Axis(f"KID of {lead.sampler} ({lead.extractor}, n = {lead.count})", better="lower")
    y = Axis(f"{ROBUST[attack or 'worst_case']} accuracy", percent=True, better="higher")
    panel = Scatter(points, x, y, _marks(drawn, lead))
    return [Chart("plane", "Robustness and generation", CAPTION, [panel])]


def _marks(drawn: list[Generation], lead: Column) -> dict[str, float]:
    """Return the KID of real images, and of initial images where all runs share them."""
    leads = [found.samplers[lead.sampler] for found in drawn if lead.sampler in found.samplers]
    initial = {found.seeds.kid for found in leads if found.seeds is not None}
    floor = drawn[0].floor
    marks = {} if floor is None else {"real images": floor.kid}
    return marks | ({"initial images": initial.pop()} if len(initial) == 1 else {})


def _point(row: Mapping[str, Any], lead: Column, name: str, run: Run) -> Point | None:
    attack, kid = robust_attack(run.record.figures), row.get(lead.name)
    if attack is None or kid is None or missing(kid):
        return None
    robust, error = run.record.figures[attack], row[lead.of("kid_error").name]
    return Point(
        name,
        x=kid,
        x_low=kid - Z * error,
        x_high=kid + Z * error,
        y=robust.accuracy,
        y_low=robust.low,
        y_high=robust.high,
        front=row["pareto"] is True,
        link=run.link,
        tip=f"{name}: {percent(robust.accuracy)}, KID {with_error(kid, error)}",
    )

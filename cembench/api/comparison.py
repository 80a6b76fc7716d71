"""Comparison from Python: leaderboards, and checkpoints with a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cembench.evaluation.gate.check import check as check_baseline
from cembench.evaluation.gate.evaluator import Evaluator
from cembench.evaluation.gate.gate import Outcome
from cembench.evaluation.record import Record
from cembench.interop.hub.cache import local, placed_row
from cembench.interop.hub.manifest import Part
from cembench.util.lazy import lazy_imports

with lazy_imports():
    from cembench.reporting.leaderboard import Board, build_boards, find_records, write_boards
    from cembench.reporting.plots.curves import write_curve


def leaderboard(
    runs: Sequence[str | Path | Record] = ("runs",),
    out: str | Path | None = None,
    *,
    verify: bool = False,
) -> list[Board]:
    """Rank records.

    Args:
        runs: records, and run folders, folders of them or addresses, whose records are read.
        out: where tables are written as CSV and markdown, if anywhere.
        verify: read every checkpoint as a whole to see whether it is the one that was measured;
            its seal tells otherwise.

    Returns:
        Boards: `table` is a data frame of all columns, with the bounds of intervals, `shown` one
        for people, which a notebook displays.

    Raises:
        CembenchError: when a folder holds no records, or a record is damaged.
    """
    folders = [local(run, Part.RECORDS) for run in runs if not isinstance(run, Record)]
    given = [run for run in runs if isinstance(run, Record)]
    boards = build_boards([*given, *find_records(folders, verify=verify).values()])
    if out is not None:
        write_boards(boards, Path(out))
    return boards


def check(
    baseline: str | Path,
    checkpoints: Sequence[str | Path] = (),
    *,
    allow_changed_software: bool = False,
    allow_unchecked: bool = False,
    out: str | Path | None = None,
    device: str = "auto",
    data_root: str | None = None,
    inception_weights: str | Path | None = None,
) -> list[Outcome]:
    """Compare checkpoints with a baseline, figure by figure.

    Args:
        baseline: the file that `cembench check --update` wrote.
        checkpoints: run folders, files, addresses, or `NAME=FILE` for the row of that name; those
            that the baseline names unless given.
        allow_changed_software: compare also when rows were measured with other versions.
        allow_unchecked: let rows pass without sanity checks.
        out: the folder of records; beside the checkpoints unless given.
        device: where to compute.
        data_root: where the data lies now.
        inception_weights: weights for the extractors `inception` and `dinov2`.

    Returns:
        One outcome per figure; `outcome.passes` says whether it needs no attention.

    Raises:
        CembenchError: when something is missing or cannot be evaluated, or when protocol, images
            or software are not those that a row was measured under.
    """
    evaluator = Evaluator(
        device,
        data_root,
        None if inception_weights is None else Path(inception_weights),
        None if out is None else Path(out),
        write_curve,
    )
    return check_baseline(
        [placed_row(str(checkpoint)) for checkpoint in checkpoints],
        Path(baseline),
        evaluator,
        allow_changed_software=allow_changed_software,
        allow_unchecked=allow_unchecked,
    )

"""Boards of means over seeds: one row per experiment that was run with several."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from cembench.evaluation.record import Record
from cembench.evaluation.sections.minimal import MEDIANS
from cembench.evaluation.sections.threats import threat_of
from cembench.evaluation.statistics import half_width
from cembench.reporting.leaderboard.board import Board, Shown
from cembench.reporting.leaderboard.frame import frame, says
from cembench.reporting.leaderboard.ranking import best_first
from cembench.reporting.leaderboard.rows import (
    REPLACED,
    SAME,
    board_stem,
    filled,
    row_of,
    show_sanity,
    with_marks,
)
from cembench.util.display.column import Column
from cembench.util.display.format import number, with_error

SUFFIXES = ("_acc", "_kid", "_gain", "_recall", "_judge_acc", "_ball_lse", *MEDIANS)
SCORES = ("ece", "nll", "brier")  # lower is better
HIDDEN = ("_judge_acc", "_ball_acc", "_ball_lse", "_worst_class_acc", "brier")  # in files alone


def seed_boards(records: Sequence[Record]) -> list[Board]:
    """Return a board of means for each way of measuring in which an experiment has two seeds."""
    rows = frame(row_of(record) for record in records if record.recipe)
    if rows.empty:
        return []
    rows = rows.drop_duplicates([*SAME[:-1], "recipe", "seed"])
    rows["reference"] = filled(rows)
    boards: dict[str, Board] = {}
    for _, group in rows.groupby(SAME):
        several = group[group.groupby("recipe")["seed"].transform("nunique") > 1]
        if several.empty:
            continue
        stem = board_stem(several.iloc[0], boards, "seeds")
        boards[stem] = _board(stem, several)
    return list(boards.values())


def _board(stem: str, rows: pd.DataFrame) -> Board:
    averaged = [c for c in rows.columns if c in SCORES or c.endswith(SUFFIXES)]
    figures = [c for c in averaged if says(rows[c])]
    means = [mean_row(group, figures) for _, group in rows.groupby("recipe")]
    first = rows.iloc[0]
    table = best_first(frame(means), "runs")
    title = (
        f"{first['dataset']}, {first['threat']}, protocol {first['protocol']}, "
        f"{first['split']} images: mean ± standard deviation over seeds "
        "(CSV: also half the 95 % t-interval of the mean)"
    )
    kept = with_marks(table.drop(columns="records"), table).reset_index(drop=True)
    return _shown(table, figures).board(stem, title, kept, table["records"].tolist())


def mean_row(group: pd.DataFrame, figures: list[str]) -> dict[str, Any]:
    """Return the row of an experiment: the mean of each figure over its seeds, and its spread."""
    row: dict[str, Any] = {
        "runs": re.sub(r"[.]s\d+$", "", str(group["run"].min())),
        "method": group["method"].iloc[0],
        "labels": group["labels"].iloc[0],
        "seeds": group["seed"].nunique(),
        "divergences": int(group["divergences"].sum()),
        "train_gradients": float(group["train_gradients"].mean()),
        "sanity_failed": int((group["sanity_failed"] != "").sum()),
        "checkpoint": int((group["checkpoint"] != "").sum()),
        "unchecked": bool(group["unchecked"].all()),
    }
    for column, cells in zip(figures, group[figures].to_numpy(float).T, strict=True):
        values = cells[~np.isnan(cells)]
        row[column] = values.mean() if len(values) else np.nan
        row[f"{column}_std"] = values.std(ddof=1) if len(values) > 1 else np.nan
        row[f"{column}_half"] = half_width(values.tolist())
        row[f"{column}_runs"] = len(values)
    return row | {"recipe": group["recipe"].iloc[0], "records": group["record"].tolist()}


def _shown(table: pd.DataFrame, figures: list[str]) -> Shown:
    shown = Shown(table)
    for name in ("runs", "method", *shown.labels, "seeds", "divergences"):
        shown.add(name, name)
    shown.add("gradients ↓", "train_gradients", lambda mean: number(mean, ".2g"))
    for column in figures:
        if not column.endswith(HIDDEN) and not threat_of(column):
            text = partial(with_deviation, form=".1%" if column.endswith("acc") else ".3g")
            shown.add(heading(column), column, text, f"{column}_std", f"{column}_runs", "seeds")
    show_sanity(shown, "seeds")
    shown.mark("checkpoint", "checkpoint", "seeds", note=REPLACED)
    return shown


def heading(column: str) -> str:
    """Return a column's name for people: `KID-lite0@64 rcs-gaussian, n597 ↓`."""
    known = Column.parse(column)
    if known is not None and known.metric in ("kid", "gain"):
        what, arrow = {"kid": (f"KID-{known.extractor}", "↓"), "gain": ("gain", "↑")}[known.metric]
        return f"{what} {known.sampler}, n{known.count} {arrow}"
    lower = column in SCORES or column.endswith("_kid")
    return f"{column.removesuffix('_acc')} {'↓' if lower else '↑'}"


def with_deviation(mean: float, deviation: float, runs: int, seeds: int, form: str) -> str:
    """Return a mean and its standard deviation, and how many runs have the figure if not all do."""
    some = "" if runs == seeds else f" ({runs} of {seeds})"
    return with_error(mean, deviation, form) + some

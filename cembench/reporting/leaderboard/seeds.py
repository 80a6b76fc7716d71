"""Means over seeds: the same experiment run several times is one row."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import pandas as pd
from scipy.stats import t

from cembench.evaluation.record import Record
from cembench.reporting.leaderboard.board import Board, Shown, slug
from cembench.reporting.leaderboard.robustness import SAME, filled, row_of

SUFFIXES = ("_acc", "_kid", "_gain", "_judge_acc", "_ball_lse")


def seed_boards(records: Sequence[Record]) -> list[Board]:
    """Return a board of means for each way of measuring in which an experiment has two seeds."""
    rows = pd.DataFrame([row_of(record) for record in records if record.recipe])
    if rows.empty:
        return []
    rows = rows.drop_duplicates([*SAME[:-1], "recipe", "seed"])
    rows["reference"] = filled(rows)
    boards: dict[str, Board] = {}
    for _, group in rows.groupby(SAME):
        several = group[group.groupby("recipe")["seed"].transform("nunique") > 1]
        if several.empty:
            continue
        first = several.iloc[0]
        held = "" if first["split"] == "test" else first["split"]
        stem = slug(first["dataset"], first["slug"], held, "seeds")
        if stem in boards:
            stem = slug(stem, f"{first['protocol']}-{first['protocol_digest'][:6]}")
        boards[stem] = _board(stem, several)
    return list(boards.values())


def _board(stem: str, rows: pd.DataFrame) -> Board:
    averaged = [c for c in rows.columns if c == "ece" or c.endswith(SUFFIXES)]
    figures = [c for c in averaged if rows[c].notna().any()]
    means = [_mean(group, figures) for _, group in rows.groupby("recipe")]
    first = rows.iloc[0]
    order = [c for c in ("autoattack_acc", "worst_case_acc", "clean_acc") if c in figures][:1]
    table = pd.DataFrame(means).sort_values(
        [*order, "runs"], ascending=[False] * len(order) + [True]
    )
    title = (
        f"{first['dataset']}, {first['threat']}, protocol {first['protocol']}, "
        f"{first['split']} images: mean ± standard deviation over seeds "
        "(CSV: also half the 95 % t-interval of the mean)"
    )
    kept = table.drop(columns="records").reset_index(drop=True)
    return _shown(table, figures).board(stem, title, kept, table["records"].tolist())


def _mean(group: pd.DataFrame, figures: list[str]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "runs": re.sub(r"[.]s\d+$", "", str(group["run"].min())),
        "method": group["method"].iloc[0],
        "labels": group["labels"].iloc[0],
        "seeds": group["seed"].nunique(),
        "divergences": int(group["divergences"].sum()),
        "train_gradients": float(group["train_gradients"].mean()),
        "sanity_failed": int((group["sanity_failed"] != "").sum()),
    }
    for column in figures:
        values = group[column].dropna().astype(float)
        row[column] = values.mean() if len(values) else math.nan
        row[f"{column}_std"] = values.std()
        row[f"{column}_half"] = half_width(values)
        row[f"{column}_runs"] = len(values)
    return row | {"recipe": group["recipe"].iloc[0], "records": group["record"].tolist()}


def half_width(values: pd.Series) -> float:
    """Return half the 95 % t-interval of a mean; NaN for fewer than two values."""
    count = len(values)
    return (
        float(t.ppf(0.975, count - 1) * values.std() / math.sqrt(count)) if count > 1 else math.nan
    )


def _shown(table: pd.DataFrame, figures: list[str]) -> Shown:
    told = (table["labels"] != "all").any()
    shown = Shown(table)
    for name in ("runs", "method", *(["labels"] if told else []), "seeds", "divergences"):
        shown.add(name, name)
    shown.add("gradients ↓", "train_gradients", table["train_gradients"].map("{:.2g}".format))
    for column in figures:
        if not column.endswith(("_judge_acc", "_ball_acc", "_ball_lse")):
            shown.add(heading(column), column, _cells(table, column))
    if table["sanity_failed"].any():
        both = zip(table["sanity_failed"], table["seeds"], strict=True)
        marks = [f"⚠ {failed} of {seeds}" if failed else "" for failed, seeds in both]
        shown.add("sanity", "sanity_failed", marks)
    return shown


def _cells(table: pd.DataFrame, column: str) -> list[str]:
    percent = column.endswith("acc")
    scale, form = (100, "{:.1f} ± {:.1f} %") if percent else (1, "{:.3g} ± {:.2g}")
    beside = (table[f"{column}_std"], table[f"{column}_runs"], table["seeds"])
    return [
        _cell(scale * value, scale * deviation, form, runs, seeds)
        for value, deviation, runs, seeds in zip(table[column], *beside, strict=True)
    ]


def heading(column: str) -> str:
    """Return a column's name for people: `KID-lite0@64 rcs-gaussian, n597 ↓`."""
    if column.endswith(("_kid", "_gain")):
        title, extractor, count, measure = column.rsplit("_", 3)
        what = {"kid": f"KID-{extractor}", "gain": "gain"}[measure]
        return f"{what} {title}, {count} {'↓' if measure == 'kid' else '↑'}"
    return f"{column.removesuffix('_acc')} {'↓' if column == 'ece' else '↑'}"


def _cell(value: float, deviation: float, form: str, runs: int, seeds: int) -> str:
    if runs == 0:
        return f"– (0 of {seeds})"
    return form.format(value, deviation) + ("" if runs == seeds else f" ({runs} of {seeds})")

"""Boards of networks: one row per run, robust and generative columns side by side."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pandas as pd

from cembench.evaluation.record import Record
from cembench.evaluation.sections.minimal import MEDIANS
from cembench.evaluation.sections.robustness import OUTSIDE
from cembench.evaluation.sections.threats import threat_of
from cembench.reporting.leaderboard.board import Board, Shown, optional
from cembench.reporting.leaderboard.frame import frame, says
from cembench.reporting.leaderboard.ranking import ROBUST, best_first, lead_column, pareto_front
from cembench.reporting.leaderboard.rows import (
    ACCEPTED,
    REPLACED,
    SAME,
    arranged,
    board_stem,
    filled,
    row_of,
    show_sanity,
)
from cembench.util.display.column import Column
from cembench.util.display.format import (
    NOTHING,
    missing,
    number,
    percent,
    with_error,
    with_interval,
)


def robust_boards(records: Sequence[Record]) -> list[Board]:
    """Return one board per data set (by its test images), threat model and protocol.

    The one with most images, then most runs, of a data set and threat model gets the short name;
    the name of any other says its protocol.
    """
    rows = frame(map(row_of, records))
    if rows.empty:
        return []
    rows["reference"] = filled(rows)
    groups = [group for _, group in rows.groupby(SAME, sort=True)]
    groups.sort(key=lambda group: (-group["n_images"].max(), -len(group)))
    boards: dict[str, Board] = {}
    for group in groups:
        stem = board_stem(group.iloc[0], boards)
        boards[stem] = _board(stem, group)
    return list(boards.values())


def _board(stem: str, group: pd.DataFrame) -> Board:
    group = best_first(group, "run")
    lead = lead_column(group["record"])
    if lead is not None:
        group["pareto"] = pareto_front(group, lead)
    first = group.iloc[0]
    title = (
        f"{first['dataset']}, {first['threat']}, protocol {first['protocol']} on "
        f"{first['n_images']} {first['split']} images; accuracy in percent with its 95 % Wilson "
        "interval"
    )
    sources = [[record] for record in group["record"]]
    return _shown(group, lead).board(stem, title, arranged(group), sources)


def _shown(table: pd.DataFrame, lead: Column | None) -> Shown:
    shown = Shown(table)
    for name in ("run", "method", *shown.labels):
        shown.add(name, name)
    for column in table.columns:
        known = f"{column}_low" in table and says(table[column])
        if known and not threat_of(column):  # boards across threat models show those
            _show_interval(shown, column)
    _show_worst_class(shown)
    for attack in ROBUST:
        untried = f"{attack}_untried"
        if attack != "worst_case" and untried in table and says(table[untried]):
            shown.add(f"{attack} untried", untried, number)
    if lead is not None:
        _show_lead(shown, lead)
    shown.add("images", "n_images")
    shown.add("seed", "seed")
    if table["divergences"].any():
        shown.add("divergences", "divergences")
    shown.add("gradients ↓", "train_gradients", partial(number, form=".2g"))
    show_sanity(shown)
    shown.mark("checkpoint", "checkpoint", note=REPLACED)
    if any(shown.table["accepted"]):
        shown.add("accepted", "accepted")
        shown.notes.append(ACCEPTED)
    if says(table["error"]):
        shown.add("error", "error", optional)
    return shown


def _show_interval(shown: Shown, column: str) -> None:
    """Show an accuracy under attack, or the median size of smallest perturbations."""
    ends = f"{column}_low", f"{column}_high"
    if column.endswith(MEDIANS):
        shown.add(f"{column.replace('_', ' ')} ↑", column, with_interval, *ends)
    if not column.endswith("_acc"):
        return
    name = column.removesuffix("_acc")
    outside = [c for c in [f"{name}_outside"] if c in shown.table and says(shown.table[c])]
    shown.add(f"{name} ↑", column, _accuracy, *ends, *outside)
    if outside and (note := f"⚠ {OUTSIDE}") not in shown.notes:
        shown.notes.append(note)


def _accuracy(value: float, low: float, high: float, outside: float = 0) -> str:
    text = with_interval(value, low, high, ".1%")
    return text if missing(outside) or not outside else f"{text} ⚠ {outside:.0f} outside"


def _show_worst_class(shown: Shown) -> None:
    """Show the accuracy of the worst class under the attack by which the table is sorted."""
    known = [f"{attack}_worst_class_acc" for attack in ROBUST]
    column = next((c for c in known if c in shown.table and says(shown.table[c])), None)
    if column is not None:
        shown.add(f"{column.removesuffix('_acc').replace('_', ' ')} ↑", column, percent)


def _show_lead(shown: Shown, lead: Column) -> None:
    heading = f"KID-{lead.extractor} {lead.sampler}, n{lead.count} ↓"
    shown.add(heading, lead.name, with_error, lead.of("kid_error").name)
    gain, *ends = (lead.of(metric).name for metric in ("gain", "gain_low", "gain_high"))
    shown.add("gain over its seeds ↑", gain, with_interval, *ends)
    shown.add("Pareto", "pareto", lambda front: {True: "★", False: ""}.get(front, NOTHING))

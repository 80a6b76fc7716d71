"""Boards across threat models: one row per network, a column per threat model, and their union."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import pandas as pd

from cembench.evaluation.record import Record
from cembench.evaluation.sections.threats import UNION, Threats, titled
from cembench.reporting.leaderboard.board import Board, Shown
from cembench.reporting.leaderboard.frame import frame, says
from cembench.reporting.leaderboard.ranking import lead_column, robust_attack
from cembench.reporting.leaderboard.rows import (
    REPLACED,
    SAME,
    board_stem,
    filled,
    row_of,
    show_sanity,
    with_marks,
)
from cembench.reporting.leaderboard.seeds import mean_row, with_deviation
from cembench.util.display.format import number, with_error, with_interval

MEDIAN = re.compile(r".+_median_[a-z0-9]+")  # of the smallest perturbations, and its norm
LAST = ["n_images", "train_gradients", "weights_sha256", "model", "split", "protocol"]
LAST += ["protocol_digest", "recipe", "cembench", "sanity_failed"]
UNION_NOTE = "Union: images that are classified correctly under every attack of every threat model."


class Entry(NamedTuple):
    """A figure on the board.

    Attributes:
        heading: for people.
        column: of the rows.
        form: of its text.
        error: the column of its standard error, in place of an interval.
    """

    heading: str
    column: str
    form: str
    error: str = ""

    def ends(self, table: pd.DataFrame) -> list[str]:
        """Return the columns of its interval or error, if there are any."""
        known = [self.error] if self.error else [f"{self.column}_low", f"{self.column}_high"]
        return [column for column in known if column in table]


def across_boards(records: Sequence[Record]) -> list[Board]:
    """Return the boards of all ways of measuring that have several threat models.

    There is one of networks for each, and one of means where an experiment has several seeds.
    """
    rows = frame(row_of(record) for record in records if record.threats)
    if rows.empty:
        return []
    rows["reference"] = filled(rows)
    boards: dict[str, Board] = {}
    for _, group in rows.groupby(SAME, sort=True):
        group = group.assign(seeds=group.groupby("recipe")["seed"].transform("nunique"))
        stem = board_stem(group.iloc[0], boards, "threats")
        boards[stem] = _networks(stem, group)
        several = group[(group["seeds"] > 1) & (group["recipe"] != "")]
        if not several.empty:
            stem = board_stem(several.iloc[0], boards, "threats", "seeds")
            boards[stem] = _means(stem, several)
    return list(boards.values())


def _networks(stem: str, group: pd.DataFrame) -> Board:
    table, entries = _ranked(group, "run"), _entries(group)
    shown = Shown(table)
    for name in ("run", "method", *shown.labels):
        shown.add(name, name)
    for one in entries:
        ends = one.ends(table)
        text = (with_error if one.error else with_interval) if ends else number
        shown.add(one.heading, one.column, partial(text, form=one.form), *ends)
    shown.add("seed", "seed")
    show_sanity(shown)
    figures = [column for one in entries for column in (one.column, *one.ends(table))]
    kept = table[["run", "method", "labels", "dataset", "threats", *figures, "seed", *LAST]]
    sources = [[record] for record in table["record"]]
    how = "with 95 % intervals"
    return _finished(shown, stem, kept, table, sources, how)


def _means(stem: str, group: pd.DataFrame) -> Board:
    entries = _entries(group)
    group = group.drop_duplicates(["recipe", "seed"])
    means = [
        mean_row(own, [one.column for one in entries]) | {"threats": own["threats"].iloc[0]}
        for _, own in group.groupby("recipe")
    ]
    table = _ranked(frame(means), "runs")
    shown = Shown(table)
    for name in ("runs", "method", *shown.labels, "seeds"):
        shown.add(name, name)
    for one in entries:
        text = partial(with_deviation, form=one.form)
        more = (f"{one.column}_std", f"{one.column}_runs", "seeds")
        shown.add(one.heading, one.column, text, *more)
    show_sanity(shown, "seeds")
    how = "mean ± standard deviation over seeds (CSV: also half the 95 % t-interval of the mean)"
    first = group.iloc[0]
    table = table.assign(**{key: first[key] for key in TITLE})
    kept = table.drop(columns=["records", *TITLE])
    return _finished(shown, stem, kept, table, table["records"].tolist(), how)


TITLE = ["dataset", "protocol", "n_images", "split"]


def _finished(
    shown: Shown,
    stem: str,
    kept: pd.DataFrame,
    table: pd.DataFrame,
    sources: Sequence[Sequence[Record]],
    how: str,
) -> Board:
    first = table.iloc[0]
    shown.mark("checkpoint", "checkpoint", *["seeds"] * ("runs" in table), note=REPLACED)
    shown.notes.append(UNION_NOTE)
    title = (
        f"{first['dataset']} under {first['threats']}, protocol {first['protocol']} on "
        f"{first['n_images']} {first['split']} images; accuracy in percent, {how}"
    )
    return shown.board(stem, title, with_marks(kept, table).reset_index(drop=True), sources)


def _ranked(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Sort networks by the accuracy of the union; equal ones by clean accuracy, then by name."""
    order = [column for column in (f"{UNION}_acc", "clean_acc") if column in table]
    return table.sort_values([*order, name], ascending=[False] * len(order) + [True])


def _entries(table: pd.DataFrame) -> list[Entry]:
    """Return what the board shows, as far as some row has it."""
    found = [*_accuracies([record.threats for record in table["record"]]), *_further(table)]
    lead = lead_column(table["record"])
    if lead is not None:
        heading = f"KID-{lead.extractor} {lead.sampler}, n{lead.count} ↓"
        found.append(Entry(heading, lead.name, ".3g", lead.of("kid_error").name))
    return [one for one in found if one.column in table and says(table[one.column])]


def _accuracies(several: Sequence[Threats]) -> Iterator[Entry]:
    """Yield the clean accuracy, that under the strongest attack of each threat model, the union.

    The strongest attack is that which other boards rank by.
    """
    yield Entry("clean ↑", "clean_acc", ".1%")
    for place, (name, one) in enumerate(several[0].under.items()):
        attack = robust_attack({title for found in several for title in found.under[name].figures})
        column = titled(name if place else "", f"{attack}_acc")
        yield Entry(f"{one.threat} {attack} ↑", column, ".1%")
    yield Entry(f"{UNION} ↑", f"{UNION}_acc", ".1%")


def _further(table: pd.DataFrame) -> Iterator[Entry]:
    """Yield the accuracy under corruptions with mCE, and medians of smallest perturbations."""
    for column in map(str, table.columns):
        if column.endswith("_mce"):
            title = column.removesuffix("_mce")
            yield Entry(f"{title} ↑", f"{title}_acc", ".1%")
            yield Entry(f"{title} mCE ↓", column, ".1%")
        elif MEDIAN.fullmatch(column):
            yield Entry(f"{column.replace('_', ' ')} ↑", column, ".3g")

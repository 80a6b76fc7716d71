"""Pages of data sets: all tables and charts of the runs under one threat model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from cembench.reporting.leaderboard.published import published_board
from cembench.reporting.page.charts import PlacedChart, charts
from cembench.reporting.page.runs import by_record
from cembench.reporting.page.svg import drawn
from cembench.reporting.page.tables import LinkedTable, of_board, of_chart
from cembench.reporting.plots.style import NAMED
from cembench.reporting.site.data import board_data
from cembench.reporting.site.groups import Group
from cembench.reporting.site.names import page_name
from cembench.reporting.site.pages import Pages
from cembench.reporting.site.run_pages import Shown, galleries

ROWS = 600  # rows of a table on a page at most
PICTURED = 12  # runs whose samples are shown beside each other at most


def write_group(pages: Pages, group: Group, shown: Sequence[Shown]) -> None:
    """Write the page of a data set and threat model, and its tables as CSV and JSON.

    Args:
        pages: of the site.
        group: the runs.
        shown: pictures of their samples, in the same order.
    """
    folder = f"sets/{group.name}"
    known = by_record(group.runs)
    boards = [(board, replace(of_board(board, known), csv="")) for board in group.boards]
    for board, linked in boards:
        stem = f"{folder}/{page_name(board.stem)}"
        pages.folder.write(f"{stem}.csv", board.csv())
        pages.folder.write_json(f"{stem}.json", board_data(board, linked.runs))
    placed = list(charts(group.runs, NAMED))
    found: dict[int, Any] = {
        id(one): pages.make(one.stem, partial(drawn, one)) for one in placed if one.chart.panels
    }
    found |= {id(one): f"../../runs/{one.run.anchor}/{one.address}" for one in shown}
    published = published_board({group.dataset})
    values: dict[str, Any] = {
        "group": group,
        "boards": [(page_name(b.stem), cut(one)) for b, one in boards],
    }
    values["apart"] = [] if published is None else [of_board(published, {}, "reported, not re-run")]
    kinds = dict.fromkeys(one.chart.kind for one in placed)
    values["sections"] = {kind: [p for p in placed if p.chart.kind == kind] for kind in kinds}
    values |= {"samplers": galleries(shown, PICTURED), "pictured": PICTURED, "lazily": True}
    values["table_of"] = _table_of
    pages.write(f"{folder}/index.html", "group.html", **values, **pages.parts(found))


def cut(linked: LinkedTable) -> LinkedTable:
    """Return a table with no more rows than a page shows, which says so."""
    table = linked.table
    if len(table.rows) <= ROWS:
        return linked
    note = f"{table.note}. Shown: the first {ROWS} of {len(table.rows)} rows; the files have all."
    table = replace(table, rows=table.rows[:ROWS], note=note.removeprefix(". "))
    return replace(linked, table=table, runs=linked.runs[:ROWS])


def _table_of(placed: PlacedChart) -> LinkedTable:
    return cut(of_chart(placed))

"""Index of a site: everything that has a page, for people, for the search and as data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cembench.reporting.site.groups import Group
from cembench.reporting.site.names import page_name
from cembench.reporting.site.plain import PlainTable
from cembench.util.version import __version__


def entries(
    groups: Sequence[Group], methods: Sequence[str], tables: Sequence[PlainTable]
) -> list[list[str]]:
    """Return what the search finds: kind, title, further words and address of each page."""
    sets = [["data", one.title, "", f"sets/{one.name}/index.html"] for one in groups]
    ways = [["method", name, "", f"methods/{page_name(name)}/index.html"] for name in methods]
    plain = [
        ["table", one.title, one.shown.title, f"tables/{one.name}/index.html"] for one in tables
    ]
    runs = [
        [
            *("run", run.record.run),
            f"{run.record.method}, {group.title}, {run.record.protocol.get('name')}",
            f"runs/{run.anchor}/index.html",
        ]
        for group in groups
        for run in group.runs
    ]
    return [*sets, *ways, *plain, *runs]


def listing(
    groups: Sequence[Group], methods: Sequence[str], tables: Sequence[PlainTable]
) -> dict[str, Any]:
    """Return what the site has, for programs: boards, runs, methods and tables with their files."""
    return {
        "cembench": __version__,
        "data": [_set(group) for group in groups],
        "methods": {name: f"methods/{page_name(name)}/runs.json" for name in methods},
        "tables": [
            {"title": one.title, "rows": len(one.rows), **_files(f"tables/{one.name}/{one.stem}")}
            for one in tables
        ],
    }


def _set(group: Group) -> dict[str, Any]:
    place = f"sets/{group.name}"
    boards = [
        {
            "title": board.title,
            "rows": len(board.table),
            **_files(f"{place}/{page_name(board.stem)}"),
        }
        for board in group.boards
    ]
    runs = [
        {
            "run": run.record.run,
            "method": run.record.method,
            "record": f"runs/{run.anchor}/record.json",
        }
        for run in group.runs
    ]
    own = {"dataset": group.dataset, "threat": group.threat, "page": f"{place}/index.html"}
    return {**own, "boards": boards, "runs": runs}


def _files(stem: str) -> dict[str, str]:
    return {"csv": f"{stem}.csv", "json": f"{stem}.json"}

"""Build of a site: pages of runs first, the index last, so that an earlier site stays whole."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cembench.reporting.page.images import COUNT
from cembench.reporting.page.panels import tell
from cembench.reporting.page.runs import Run
from cembench.reporting.page.tables import LinkedTable
from cembench.reporting.site.data import plain_data
from cembench.reporting.site.folder import Folder
from cembench.reporting.site.group_pages import cut, write_group
from cembench.reporting.site.groups import Group, groups
from cembench.reporting.site.index import entries, listing
from cembench.reporting.site.methods import by_method, write_method
from cembench.reporting.site.pages import Pages
from cembench.reporting.site.plain import PlainTable
from cembench.reporting.site.results import Results, read_results
from cembench.reporting.site.results import pages as known_pages
from cembench.reporting.site.run_pages import Shown, write_run
from cembench.util.display.json_text import to_json
from cembench.util.shared import sharing

WITHOUT = "a table without records"


def write_site(paths: Sequence[Path], out: Path, images: int = COUNT) -> Path:
    """Write a site of results and return the path of its first page.

    Args:
        paths: run folders, folders of them or of tables, records and collections of them.
        out: the folder of the site. What an earlier build wrote there and this one does not is
            removed; files of others stay.
        images: images of each run at most that are shown with what attacks made of them, if its
            adversarial images were kept.

    A picture, history or sheet of images that is damaged is named on its page and logged.

    Raises:
        CembenchError: when a path holds neither records nor tables, a record is damaged, or a file
            cannot be written.
    """
    results = read_results(paths)
    pages = Pages(Folder(out), images)
    pages.write_assets()
    found = groups(results.runs)
    with _unwatched():
        found = [_write_group(pages, group) for group in found]
    methods = by_method(found)
    for method, own in methods.items():
        write_method(pages, method, own)
    known = known_pages(results.runs)
    for table in results.tables:
        _write_table(pages, table, known)
    _write_index(pages, found, list(methods), results)
    pages.folder.close()
    problems = (problem for group in found for run in group.runs for problem in run.problems)
    tell([*results.problems, *problems, *pages.panels.lines])
    return out / "index.html"


@contextmanager
def _unwatched() -> Iterator[None]:
    """Spare the garbage collector all records, which it would go through again for every chart."""
    others = gc.get_freeze_count()
    gc.freeze()
    try:
        yield
    finally:
        if not others:
            gc.unfreeze()


def _write_group(pages: Pages, group: Group) -> Group:
    """Write the pages of runs, then the one that compares them; return the group with problems."""
    runs: list[Run] = []
    shown: list[Shown] = []
    with sharing():
        for run in group.runs:
            told, pictures = write_run(pages, run, group)
            runs.append(told)
            shown += pictures
    group = Group(group.dataset, group.threat, runs, group.boards)
    write_group(pages, group, shown)
    return group


def _write_table(pages: Pages, table: PlainTable, known: Mapping[tuple[str, ...], Run]) -> None:
    runs = [[known[key]] if (key := table.keys(row)) in known else [] for row in table.rows]
    folder = f"tables/{table.name}"
    pages.folder.write(f"{folder}/{table.stem}.csv", table.content)
    pages.folder.write_json(f"{folder}/{table.stem}.json", plain_data(table, runs))
    linked = cut(LinkedTable(table.shown, runs, table.stem, WITHOUT))
    values: dict[str, Any] = {"table": table, "linked": linked}
    pages.write(f"{folder}/index.html", "table.html", **values, **pages.parts({}))


def _write_index(
    pages: Pages, found: Sequence[Group], methods: Sequence[str], results: Results
) -> None:
    text = to_json(entries(found, methods, results.tables))
    pages.folder.write("search.js", f"globalThis.cembenchSearch = {text};\n")
    pages.folder.write_json("index.json", listing(found, methods, results.tables))
    values = {"groups": found, "methods": methods, "results": results}
    values["dates"] = sorted(r.record.created[:10] for r in results.runs if r.record.created)
    pages.write("index.html", "index.html", **values, **pages.parts({}))

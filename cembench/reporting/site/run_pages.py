"""Pages of runs: everything that the report shows of one, and its files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from cembench.evaluation.record.files import record_file
from cembench.reporting.page.charts import history
from cembench.reporting.page.images import Sheet, kept, load_sheet, lost
from cembench.reporting.page.pictures import Picture
from cembench.reporting.page.runs import Run, read_run
from cembench.reporting.page.svg import drawn
from cembench.reporting.site.data import rows_of
from cembench.reporting.site.groups import Group
from cembench.reporting.site.names import page_name
from cembench.reporting.site.pages import Pages
from cembench.util.display.cells import Cells


@dataclass(frozen=True)
class Shown:
    """A picture of samples on the page of its run, as other pages show it.

    Attributes:
        run: the run.
        file: that it was made from.
        sampler: whose samples they are.
        strip: whether it shows how chains move.
        size: width and height in pixels.
        cells: where each image lies, if that is known.
        places: the same as plain values.
        address: its file from the folder of the run's page.
    """

    run: Run
    file: Path
    sampler: str
    strip: bool
    size: tuple[int, int]
    cells: Cells | None
    places: dict[str, int]
    address: str


def write_run(pages: Pages, light: Run, group: Group) -> tuple[Run, list[Shown]]:
    """Write the page of a run, its pictures, its record and its rows.

    Args:
        pages: of the site.
        light: the run without pictures.
        group: the runs that it is compared with.

    Returns:
        The run with the problems of its files, and its pictures.
    """
    folder = f"runs/{light.anchor}"
    run = replace(read_run(light.path, light.record, light.anchor), page=light.page)
    found: dict[int, Any] = {}
    own = next(iter(history([run], f"{run.anchor}-training", "Training")), None)
    if own is not None:
        found[id(own)] = pages.make(own.stem, partial(drawn, own))
    shown = [one for one in (_picture(pages, light, one) for one in run.pictures) if one]
    found |= {id(one): one.address for one in shown}
    sheet = _sheet(pages, run)
    if sheet is not None:
        pages.folder.write(f"{folder}/images.png", sheet.png)
        pages.folder.write(f"{folder}/images.js", _facts(sheet))
        found[id(sheet)] = sheet.element("images.png")
    rows = rows_of(run, group.boards)
    pages.folder.write(f"{folder}/record.json", record_file(run.record))
    pages.folder.write_json(f"{folder}/row.json", rows)
    values: dict[str, Any] = {"run": run, "group": group, "own": own, "rows": rows}
    values |= {"sheets": {run.anchor: sheet} if sheet else {}, "pictures": _pairs(shown)}
    values["beside"] = _beside(run, group) if sheet else []
    values["lost"] = lambda run: pages.images > 0 and lost(run.path, run.record)
    pages.write(f"{folder}/index.html", "run.html", **values, **pages.parts(found))
    return replace(light, problems=run.problems, missing=run.missing), shown


def galleries(shown: Sequence[Shown], most: int) -> dict[str, list[Shown]]:
    """Return the pictures of samples by sampler, of so many runs at most."""
    found: dict[str, list[Shown]] = {}
    for one in shown:
        if not one.strip:
            found.setdefault(one.sampler, []).append(one)
    return {sampler: some[:most] for sampler, some in found.items()}


def _pairs(shown: Sequence[Shown]) -> list[tuple[Shown, Shown | None]]:
    """Return each picture of samples with the one of the first chains of the same sampler."""
    strips = {one.sampler: one for one in shown if one.strip}
    return [(one, strips.get(one.sampler)) for one in shown if not one.strip]


def _picture(pages: Pages, run: Run, picture: Picture) -> Shown | None:
    content = pages.make(str(picture.file), partial(picture.webp, quick=True))
    if content is None:
        return None
    address = f"{'chains' if picture.strip else 'samples'}/{page_name(picture.sampler)}.webp"
    pages.folder.write(f"runs/{run.anchor}/{address}", content)
    about = picture.size, picture.cells, picture.places, address
    return Shown(run, picture.file, picture.sampler, picture.strip, *about)


def _beside(run: Run, group: Group) -> list[tuple[str, str]]:
    """Return the anchors and names of other runs whose images are of the same data."""
    alike = (one for one in group.runs if one.record.fingerprint == run.record.fingerprint)
    others = (one for one in alike if one.anchor != run.anchor)
    return [(one.anchor, one.record.run) for one in others if kept(one.path, one.record)]


def _facts(sheet: Sheet) -> str:
    """Return a script that gives another page what it needs to show the images of a run."""
    facts = json.dumps(sheet.facts, separators=(",", ":"))
    return f'(globalThis.cembenchImages ??= {{}})["{sheet.anchor}"] = {facts};\n'


def _sheet(pages: Pages, run: Run) -> Sheet | None:
    work = partial(load_sheet, run.path, run.record, run.anchor, pages.images)
    sheet: Sheet | None = pages.make(str(run.path), work)
    return sheet

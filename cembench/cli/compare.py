"""`cembench compare`: compare two runs image by image."""

from __future__ import annotations

import json
from pathlib import Path

import click

from cembench.cli.base import FILE, JSON, PROTOCOL, Command, say
from cembench.util.errors import CembenchError
from cembench.util.files.layout import RunLayout


@click.command("compare", cls=Command, example="runs/at runs/trades --protocol quick")
@click.argument("first", type=FILE)
@click.argument("second", type=FILE)
@PROTOCOL(help="Name of the records, if there are several.")
@JSON(help="Print all numbers, with those of the images, as JSON.")
def command(first: Path, second: Path, protocol: str | None, as_json: bool) -> None:
    """Compare two runs image by image (McNemar's test)."""
    for path in (first, second):
        if not path.exists():
            raise CembenchError(f"{path}: no such record or run; run `cembench eval` on a run")
    import pandas as pd

    from cembench.evaluation.compare import compare_records
    from cembench.util.display.format import number, percent, with_interval
    from cembench.util.display.markdown import markdown_table

    rows = compare_records(_record(first, protocol), _record(second, protocol))
    if as_json:
        say(json.dumps([row.dump() for row in rows], indent=2))
        return
    shown = {
        "metric": [row.figure for row in rows],
        str(first): [percent(row.first / row.images) for row in rows],
        str(second): [percent(row.second / row.images) for row in rows],
        "difference": [
            with_interval(100 * row.difference, 100 * row.low, 100 * row.high, "+.1f")
            for row in rows
        ],
        "only first": [len(row.only_first) for row in rows],
        "only second": [len(row.only_second) for row in rows],
        "p": [number(row.p_value, ".2g") for row in rows],
    }
    if any(row.untried for row in rows):
        shown["untried"] = [row.untried for row in rows]
    say(markdown_table(pd.DataFrame(shown)), nl=False)


def _record(path: Path, protocol: str | None) -> Path:
    """Return the record that a path means: itself, or the one of a run folder."""
    from cembench.evaluation.record import load_beside

    if path.suffix == ".json":
        return path
    found = RunLayout(path).records(protocol or "*")
    others = [file for file in found if not file.name.startswith("baseline-")]  # of `check`
    found = others if len(others) == 1 else found
    if len(found) == 1:
        if load_beside(found[0]).replaced:
            raise CembenchError(f"{found[0]}: of other weights than lie beside it; evaluate again")
        return found[0]
    names = ", ".join(file.stem for file in found)
    hint = f"choose one with --protocol: {names}" if found else "run `cembench eval` on it"
    raise CembenchError(f"{path}: {len(found)} records; {hint}")

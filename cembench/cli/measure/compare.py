"""`cembench compare`: compare two runs image by image."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cembench.cli.base import JSON, PROTOCOL, RUN, Command, say
from cembench.util.errors import CembenchError

if TYPE_CHECKING:
    from cembench.evaluation.compare import Difference
    from cembench.evaluation.compare.seeds import SeedDifference
    from cembench.util.settings import Settings


@click.command("compare", cls=Command, example="runs/at runs/trades --protocol quick")
@click.argument("first", type=RUN)
@click.argument("second", type=RUN)
@PROTOCOL(help="Name of the records, if there are several.")
@JSON(help="Print all numbers, with those of the images, as JSON.")
def command(first: Path, second: Path, protocol: str | None, as_json: bool) -> None:
    """Compare two runs image by image, or experiments over seeds.

    Image by image it is McNemar's test.

    `runs/at runs/trades` compares runs/at.s0 with runs/trades.s0, and so on, where runs have seeds:
    the mean difference of every figure, with its 95 % t-interval.
    """
    from cembench.evaluation.compare import compare_records, record_of
    from cembench.evaluation.compare.seeds import compare_seeds, seeds_of

    name = protocol or "*"
    seeds = not first.exists() and not second.exists() and bool(seeds_of(first))
    for path in () if seeds else (first, second):
        if not path.exists():
            raise CembenchError(f"{path}: no such record or run; run `cembench eval` on a run")
    if seeds:
        paired = compare_seeds(first, second, name)
        _show(paired, as_json, lambda: _over_seeds(first, second, paired))
        return
    rows = compare_records(record_of(first, name), record_of(second, name))
    _show(rows, as_json, lambda: _over_images(first, second, rows))


def _show(rows: Sequence[Settings], as_json: bool, table: Callable[[], dict[str, Any]]) -> None:
    import pandas as pd

    from cembench.util.display.markdown import markdown_table

    if as_json:
        say(json.dumps([row.dump() for row in rows], indent=2))
    else:
        say(markdown_table(pd.DataFrame(table())), nl=False)


def _over_seeds(first: Path, second: Path, rows: Sequence[SeedDifference]) -> dict[str, Any]:
    from cembench.util.display.format import number, with_interval

    return {
        "figure": [row.figure for row in rows],
        str(first): [number(row.first, ".4g") for row in rows],
        _other(first, second): [number(row.second, ".4g") for row in rows],
        "difference": [with_interval(row.difference, row.low, row.high, "+.3g") for row in rows],
        "seeds": [row.seeds for row in rows],
    }


def _over_images(first: Path, second: Path, rows: Sequence[Difference]) -> dict[str, Any]:
    from cembench.util.display.format import number, percent, with_interval
    from cembench.util.files.fetched import told

    shown: dict[str, Any] = {
        "metric": [row.figure for row in rows],
        told(first): [percent(row.first / row.images) for row in rows],
        _other(first, second): [percent(row.second / row.images) for row in rows],
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
    return shown


def _other(first: Path, second: Path) -> str:
    """Return the heading of the second column, which differs from that of the first."""
    from cembench.util.files.fetched import told

    return told(second) if second != first else f"{told(second)}, again"

"""`cembench compare`: compare two runs image by image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cembench.cli.base import JSON, PROTOCOL, RUN, Command, say
from cembench.util.display.json_text import to_json


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
    from cembench.evaluation.compare.tables import compare
    from cembench.util.display.markdown import markdown_table

    rows: Any = compare(first, second, protocol)
    if as_json:
        say(to_json([row.dump() for row in rows]))
    else:
        say(markdown_table(rows.shown()), nl=False)

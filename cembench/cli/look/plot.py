"""`cembench plot`: charts as files for a paper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cembench.cli.base import FILE, RUNS, Command, say

FORMATS = click.Choice(["png", "svg", "pdf"])


@click.command("plot", cls=Command, example="runs --out plots --format pdf")
@RUNS
@click.option("--out", type=FILE, default="plots", help="Folder of the files.")
@click.option("--format", "form", type=FORMATS, default="png", help="Of charts; samples are PNG.")
def command(runs: tuple[Path, ...], out: Path, form: Any) -> None:
    """Draw the records below RUNS for a paper.

    RUNS are run folders or folders of them; `runs` unless given. Prints the paths of the files.
    """
    from cembench.reporting.page import write_plots

    for path in write_plots(runs, out, form):
        say(path)

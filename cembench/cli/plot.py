"""`cembench plot`: charts as files for a paper."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cembench.cli.base import FILE, Command

if TYPE_CHECKING:
    from cembench.reporting.plots.style import Format


@click.command("plot", cls=Command)
@click.argument("runs", nargs=-1, type=FILE)
@click.option("--out", type=FILE, default="plots", show_default=True, help="Folder of the files.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["png", "svg", "pdf"]),
    default="png",
    show_default=True,
    help="Of charts; pictures of samples are PNG.",
)
def command(runs: tuple[Path, ...], out: Path, form: Format) -> None:
    """Draw the records below RUNS for a paper.

    RUNS are run folders or folders of them; `runs` unless given. Prints the paths of the files.
    """
    from cembench.reporting.page import write_plots

    for path in write_plots(runs or [Path("runs")], out, form):
        click.echo(path)

"""Commands that make pages and pictures of what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cembench.cli.base import FILE, Command

if TYPE_CHECKING:
    from cembench.reporting.plots.style import Format


@click.command(cls=Command)
@click.argument("runs", nargs=-1, type=FILE)
@click.option("--out", type=FILE, default="report", show_default=True, help="Folder of the page.")
def report(runs: tuple[Path, ...], out: Path) -> None:
    """Put all that is known of the records below RUNS (default: runs) on one page; print its path.

    The page needs no network and no other file.
    """
    from cembench.reporting.page import write_report

    click.echo(write_report(runs or [Path("runs")], out))


@click.command(cls=Command)
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
def plot(runs: tuple[Path, ...], out: Path, form: Format) -> None:
    """Draw the records below RUNS (default: runs) for a paper; print the paths of the files."""
    from cembench.reporting.page import write_plots

    for path in write_plots(runs or [Path("runs")], out, form):
        click.echo(path)

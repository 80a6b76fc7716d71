"""`cembench report`: one page of everything measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cembench.cli.base import FILE, Command

if TYPE_CHECKING:
    pass


@click.command("report", cls=Command)
@click.argument("runs", nargs=-1, type=FILE)
@click.option("--out", type=FILE, default="report", show_default=True, help="Folder of the page.")
def command(runs: tuple[Path, ...], out: Path) -> None:
    """Put the records below RUNS on one HTML page.

    RUNS are run folders or folders of them; `runs` unless given. Prints the path of the page.

    The page needs no network and no other file.
    """
    from cembench.reporting.page import write_report

    click.echo(write_report(runs or [Path("runs")], out))

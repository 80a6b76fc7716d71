"""`cembench report`: an HTML page of all results."""

from __future__ import annotations

from pathlib import Path

import click

from cembench.cli.base import FILE, IMAGES, RUNS, Command, say


@click.command("report", cls=Command, example="runs --out report")
@RUNS
@click.option("--out", type=FILE, default="report", help="Folder of the page.")
@IMAGES
def command(runs: tuple[Path, ...], out: Path, images: int) -> None:
    """Put the records below RUNS on one HTML page.

    RUNS are run folders or folders of them; `runs` unless given. Prints the path of the page.

    The page is one file and needs no network. Images that it has no room for lie beside it.
    """
    from cembench.reporting.page import write_report

    say(write_report(runs, out, images=images))

"""`cembench site`: a site of results, as any web server or none shows it."""

from __future__ import annotations

from pathlib import Path

import click

from cembench.cli.base import FILE, IMAGES, RUNS, Command, say


@click.command("site", cls=Command, example="runs --out site")
@RUNS
@click.option("--out", type=FILE, default="site", help="Folder of the site.")
@IMAGES
def command(runs: tuple[Path, ...], out: Path, images: int) -> None:
    """Put results on a site, with a page for each run.

    Each data set under a threat model, each method, and each table without records has a page too.
    All tables lie beside their pages as CSV and JSON.

    RUNS are run folders, folders of them, or folders of tables alone that `cembench leaderboard`
    wrote; `runs` unless given. The site loads nothing from elsewhere: put OUT on any web server, or
    open OUT/index.html. The next build replaces and removes what this one wrote; other files in OUT
    stay.
    """
    from cembench.reporting.site import write_site

    say(write_site(runs, out, images))

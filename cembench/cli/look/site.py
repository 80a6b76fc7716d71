"""`cembench site`: a site of results, as any web server or none shows it."""

from __future__ import annotations

from pathlib import Path

import click

from cembench.cli.base import FILE, RUNS, Command, say


@click.command("site", cls=Command, example="runs --out site")
@RUNS
@click.option("--out", type=FILE, default="site", help="Folder of the site.")
@click.option(
    "--images",
    type=click.IntRange(0),
    default=64,
    help="Attacked images of each run at most; 0 for none.",
)
def command(runs: tuple[Path, ...], out: Path, images: int) -> None:
    """Put results on a site, with a page for each run.

    There is one for each data set and method too, and all tables are there as data.

    RUNS are run folders, folders of them, or folders of tables alone that `cembench leaderboard`
    wrote; `runs` unless given. The site loads nothing from elsewhere: any web server shows it, and
    a browser opens OUT/index.html. The next build replaces and removes what this one wrote; other
    files in OUT stay.
    """
    from cembench.reporting.site import write_site

    say(write_site(runs, out, images))

"""`cembench leaderboard`: rank records."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cembench.cli.base import FILE, Command, show

if TYPE_CHECKING:
    pass


@click.command("leaderboard", cls=Command)
@click.argument("runs", nargs=-1, type=FILE)
@click.option("--out", type=FILE, default="leaderboards", show_default=True)
def command(runs: tuple[Path, ...], out: Path) -> None:
    """Rank the records below RUNS as CSV and markdown.

    RUNS are run folders or folders of them; `runs` unless given.

    What was published for their data sets comes last, on a board of its own.
    """
    from cembench.reporting.leaderboard import find_records, rank, write_boards
    from cembench.reporting.leaderboard.published import published_board

    records = find_records(runs or [Path("runs")]).values()
    boards = rank(records)
    if (reported := published_board({record.dataset for record in records})) is not None:
        boards.append(reported)
    for path in write_boards(boards, out):
        click.echo(f"wrote {path}", err=True)
    show(boards)

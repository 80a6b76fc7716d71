"""`cembench leaderboard`: rank records in tables."""

from __future__ import annotations

from pathlib import Path

import click

from cembench.cli.base import FILE, RUNS, Command, say, show


@click.command("leaderboard", cls=Command, example="runs --out leaderboards")
@RUNS
@click.option("--out", type=FILE, default="leaderboards", help="Folder of the tables.")
@click.option(
    "--robustbench", type=FILE, help="Checkout of RobustBench, whose entries follow as published."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["markdown", "latex"]),
    default="markdown",
    help="What is printed; latex: for booktabs, also as STEM.tex.",
)
@click.option("--verify", is_flag=True, help="Read every checkpoint as a whole.")
def command(
    runs: tuple[Path, ...], out: Path, robustbench: Path | None, form: str, verify: bool
) -> None:
    """Rank the records below RUNS as CSV and markdown, or LaTeX.

    RUNS are run folders or folders of them; `runs` unless given. Links to folders are followed.
    Whether a checkpoint is still the one that was measured is told by the checksum that it carries,
    or, for records of earlier versions, by size and times once it has been read.

    Published results on the same data sets come last, on a board of their own.
    """
    from cembench.reporting.leaderboard import build_boards, find_records, write_boards
    from cembench.reporting.leaderboard.published import published_board
    from cembench.reporting.leaderboard.robustbench import robustbench_boards

    records = find_records(runs, verify=verify).values()
    boards = build_boards(records)
    datasets = {record.dataset for record in records}
    if (reported := published_board(datasets)) is not None:
        boards.append(reported)
    if robustbench is not None:
        found = robustbench_boards(robustbench, datasets)
        boards += found
        if not found:
            say(f"{robustbench}: no entries of {', '.join(sorted(datasets))}", err=True)
    for path in write_boards(boards, out, latex=form == "latex"):
        say(f"wrote {path}", err=True)
    if form == "markdown":
        show(boards)
    else:
        say("\n".join(board.latex() for board in boards), nl=False)

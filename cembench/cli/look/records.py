"""`cembench records`: records as one table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cembench.cli.base import FILE, JSON, RUNS, Command, say
from cembench.util.display.json_text import to_json

if TYPE_CHECKING:
    import pyarrow as pa

SHORT = ["run", "method", "dataset", "threat", "protocol", "clean_acc", "pgd_acc"]
SHORT += ["autoattack_acc", "autoattack-fast_acc", "autoattack-sampled_acc", "worst_case_acc"]
SHORT += ["n_images", "created"]


def _named(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> list[str]:
    return [name.strip() for text in given for name in text.split(",") if name.strip()]


@click.command("records", cls=Command, example="runs --where \"method == 'at' and pgd > 0.5\"")
@RUNS
@click.option("--to", type=FILE, help="Parquet file to write, for DuckDB, pandas and cembench.")
@click.option("--where", default="", show_default=False, help="Condition that rows must meet.")
@click.option(
    "--columns", multiple=True, callback=_named, help="Columns, between commas. Repeatable."
)
@JSON(help="Print rows as JSON.")
@click.option("--csv", "as_csv", is_flag=True, help="Print rows as CSV.")
@click.option("--verify", is_flag=True, help="Read every checkpoint as a whole.")
def command(
    runs: tuple[Path, ...],
    to: Path | None,
    where: str,
    columns: list[str],
    as_json: bool,
    as_csv: bool,
    verify: bool,
) -> None:
    """Put the records below RUNS into one table.

    RUNS are run folders or folders of them, records, and files that --to wrote; `runs` unless
    given.

    There is a row for each record, with the columns of the leaderboards. With --to, the table also
    has the records themselves: wherever RUNS are asked for, the file stands for them, without their
    checkpoints, verdicts, images and samples. A file called records.parquet does so too where a
    folder is searched.

    --where takes comparisons (== != < <= > >=), in, is None, and, or, not, + - * / on columns.
    `pgd` is short for `pgd_acc`; in other names `_` stands for `-`, `.` and `@`, or they stand
    between backquotes.
    """
    from cembench.evaluation.record.collection import write_collection
    from cembench.reporting.records import collect

    table = collect(runs, where, columns, verify=verify)
    if to is not None:
        write_collection(to, table)
        say(f"wrote {to}: {table.num_rows} records, {table.num_columns} columns", err=True)
    elif as_json:
        say(to_json(_printed(table, columns, every=True).to_pylist()))
    elif as_csv:
        say(_csv(_printed(table, columns, every=True)), nl=False)
    else:
        say("\n".join(_lines(_printed(table, columns, every=False))))


def _printed(table: pa.Table, columns: list[str], every: bool) -> pa.Table:
    """Return the columns to print: those that were asked for, or some of those with values."""
    from cembench.reporting.records.names import resolve

    if columns:
        return table.select(dict.fromkeys(resolve(one, table.column_names) for one in columns))
    named = [name for name in table.column_names if name != "record"] if every else SHORT
    there = set(table.column_names)
    full = [n for n in named if n in there and table[n].null_count < table.num_rows]
    return table.select(full)


def _csv(table: pa.Table) -> str:
    from cembench.reporting.leaderboard.board import safe_csv

    return safe_csv(table.to_pandas(use_threads=False))


def _lines(table: pa.Table) -> list[str]:
    from cembench.util.display.text_table import text_table

    rows = [list(map(_cell, row.items())) for row in table.to_pylist()]
    return [*text_table(table.column_names, rows), "", f"{len(rows)} records"]


def _cell(named: tuple[str, Any]) -> str:
    from cembench.util.display.format import missing, number, percent
    from cembench.util.files.names import shown

    name, value = named
    if missing(value):
        return ""
    if isinstance(value, float):
        return percent(value) if name.endswith("_acc") else number(value, ".4g")
    return shown(str(value))

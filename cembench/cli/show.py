"""`cembench show`: the metadata of a checkpoint, run or record."""

from __future__ import annotations

import json
from pathlib import Path

import click

from cembench.cli.base import FILE, Command
from cembench.util.files.layout import RunLayout


@click.command("show", cls=Command, example="runs/at")
@click.argument("file", type=FILE)
def command(file: Path) -> None:
    """Print the metadata of a checkpoint, run or record."""
    from cembench.evaluation.record import load_record
    from cembench.models.metadata import read_metadata

    if file.suffix == ".json":
        values = load_record(file).dump()
    else:
        values = read_metadata(RunLayout.at(file).checkpoint).dump()
    click.echo(json.dumps(values, indent=2, ensure_ascii=False))

"""`cembench show`: the metadata of a checkpoint, run or record."""

from __future__ import annotations

import json
from pathlib import Path

import click

from cembench.cli.base import FILE, Command


@click.command("show", cls=Command, example="runs/at")
@click.argument("file", type=FILE)
def command(file: Path) -> None:
    """Print the metadata of a checkpoint, run or record."""
    from cembench.evaluation.record import load_record
    from cembench.models.metadata import checkpoint_file, read_metadata

    found = load_record(file) if file.suffix == ".json" else read_metadata(checkpoint_file(file))
    click.echo(json.dumps(found.dump(), indent=2, ensure_ascii=False))

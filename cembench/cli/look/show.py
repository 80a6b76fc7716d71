"""`cembench show`: what a checkpoint, run or record is."""

from __future__ import annotations

import json
from pathlib import Path

import click

from cembench.cli.base import FILE, JSON, Command, say
from cembench.util.errors import CembenchError
from cembench.util.files.layout import RunLayout

OTHERS = {".yaml": "settings", ".csv": "a table", ".md": "a table", ".parquet": "a table"}


@click.command("show", cls=Command, example="runs/at/eval/quick.json")
@click.argument("file", type=FILE)
@JSON(help="Print everything that the file says as JSON.")
def command(file: Path, as_json: bool) -> None:
    """Say what a checkpoint, run or record is.

    Of a run: method, network, data, validation, its records. Of a record: accuracies with
    intervals, samples, sanity checks, warnings, protocol.
    """
    from cembench.evaluation.record import Record
    from cembench.evaluation.record.files import load_record
    from cembench.models.metadata import read_metadata
    from cembench.reporting.describe import record_page, run_page

    if (what := OTHERS.get(file.suffix)) and not file.is_dir():
        raise CembenchError(f"{file}: {what}, no record (.json), checkpoint or run folder")
    layout = RunLayout.at(file)
    found = load_record(file) if file.suffix == ".json" else read_metadata(layout.checkpoint)
    if as_json:
        say(json.dumps(found.dump(), indent=2, ensure_ascii=False))
    elif isinstance(found, Record):
        say(record_page(found), nl=False)
    else:
        say(run_page(layout, found), nl=False)

"""`cembench show`: what a checkpoint, run, record or suite is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cembench.cli.base import JSON, RUN, Command, say
from cembench.util.display.json_text import to_json
from cembench.util.errors import CembenchError, ConfigError
from cembench.util.files.layout import RunLayout

if TYPE_CHECKING:
    from cembench.training.config import Experiment

OTHERS = dict.fromkeys((".csv", ".md", ".parquet"), "a table")
KINDS = "no record (.json), checkpoint, run folder, experiment or suite"
RECORDS = "; `cembench records` lists the records of one that it wrote"


@click.command("show", cls=Command, example="runs/at/eval/quick.json")
@click.argument("file", type=RUN)
@JSON(help="Print everything that the file says as JSON.")
def command(file: Path, as_json: bool) -> None:
    """Say what a checkpoint, run, record or suite is.

    Of a run: method, network, data, validation, its records; of a folder of runs, a line each. Of a
    record: accuracies with intervals, samples, sanity checks, warnings, protocol. Of a config: its
    experiments.
    """
    if (what := OTHERS.get(file.suffix)) and not file.is_dir():
        hint = RECORDS * (file.suffix == ".parquet")
        raise CembenchError(f"{file}: {what}, {KINDS}{hint}")
    values, page = _told(file)
    say(to_json(values) if as_json else page, nl=as_json)


def _told(file: Path) -> tuple[Any, str]:
    """Return what a file or folder says, as plain values and as a page."""
    from cembench.evaluation.record.files import load_record
    from cembench.models.metadata import read_metadata
    from cembench.reporting.describe import record_page, run_page, runs_page

    if file.suffix in (".yaml", ".yml") and not file.is_dir():
        try:
            return _config(file)
        except ConfigError as error:
            raise CembenchError(f"{error}; it is {KINDS}") from error
    if file.suffix == ".json":
        record = load_record(file)
        return record.dump(), record_page(record)
    layout = RunLayout.at(file)
    if file.is_dir() and not layout.checkpoint.exists():
        runs = {path: read_metadata(RunLayout(path).checkpoint) for path in _runs(file)}
        return {str(path): one.dump() for path, one in runs.items()}, runs_page(runs)
    found = read_metadata(layout.checkpoint)
    return found.dump(), run_page(layout, found)


def _runs(folder: Path) -> list[Path]:
    if not (found := RunLayout.runs_below(folder)):
        raise CembenchError(f"{folder}: holds no runs; a run folder has a model.safetensors")
    return found


def _config(file: Path) -> tuple[Any, str]:
    """Return the experiments of a config or suite."""
    from cembench.suites.suite import load_suite
    from cembench.training.config import load_experiment
    from cembench.training.recipes import kind_of
    from cembench.util.files.yaml import read_yaml

    if kind_of(read_yaml(file)) == "suite":
        found, protocol = load_suite(file)
        first = f"suite, protocol {protocol.name}: cembench run {file}"
    else:
        found, first = {file.stem: load_experiment(file)}, f"experiment: cembench train {file}"
    return {name: one.dump() for name, one in found.items()}, f"{first}\n\n{_table(found)}\n"


def _table(experiments: Mapping[str, Experiment]) -> str:
    from cembench.util.display.text_table import text_table

    head = ["name", "method", "model", "data", "threat model", "epochs", "seed"]
    rows = [
        [name, one.title, one.model.title, one.data.title, one.threat, one.epochs, one.seed]
        for name, one in experiments.items()
    ]
    return "\n".join(text_table(head, [list(map(str, row)) for row in rows]))

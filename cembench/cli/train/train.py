"""`cembench train`: train one experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cembench.cli.base import (
    DEVICE,
    EXPERIMENT,
    FILE,
    OUT,
    RESUME,
    SET,
    SETTINGS,
    Command,
    alone,
    say,
)
from cembench.cli.dry_run import DRY_RUN, show_training
from cembench.cli.names import name_or_file
from cembench.util.files.names import file_name


@click.command("train", cls=Command, settings=EXPERIMENT, example="digits-at epochs=2")
@click.argument("config", type=FILE, shell_complete=name_or_file("recipes"))
@SETTINGS
@SET(help="The same as KEY=VALUE.")
@OUT
@click.option("--name", help="Name of the run. Default: the config's file name.")
@RESUME
@DRY_RUN
@DEVICE
def command(config: Path, out: Path, dry_run: bool, **options: Any) -> None:
    """Train one experiment; print the path of its checkpoint.

    CONFIG is a file, or one of `cembench list recipes`. KEY=VALUE changes a setting of it, such as
    epochs=2 or threat.eps=0.1.
    """
    from cembench.api import train
    from cembench.training.config import load_experiment

    if alone() or dry_run:  # mistakes are told before torch is imported
        experiment = load_experiment(config, options["overrides"])
    if dry_run:
        folder = out / file_name(config.stem if options["name"] is None else options["name"])
        show_training(experiment, folder, options["device"])
        return
    say(train(config, out, **options))

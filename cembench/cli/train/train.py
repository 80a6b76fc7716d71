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
from cembench.cli.names import name_or_file


@click.command("train", cls=Command, settings=EXPERIMENT, example="digits-at epochs=2")
@click.argument("config", type=FILE, shell_complete=name_or_file("recipes"))
@SETTINGS
@SET(help="The same as KEY=VALUE.")
@OUT
@click.option("--name", help="Name of the run. Default: the config's file name.")
@RESUME
@DEVICE
def command(config: Path, out: Path, **options: Any) -> None:
    """Train one experiment; print the path of its checkpoint.

    CONFIG is a file, or one of `cembench list recipes`. KEY=VALUE changes a setting of it, such as
    epochs=2 or threat.eps=0.1.
    """
    from cembench.api import train
    from cembench.training.config import load_experiment

    if alone():
        load_experiment(config, options["overrides"])  # mistakes are told before torch is imported
    say(train(config, out, **options))

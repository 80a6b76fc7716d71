"""`cembench train`: train one experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cembench.cli.base import DEVICE, FILE, OUT, RESUME, SET, Command, say
from cembench.cli.names import name_or_file


@click.command("train", cls=Command, example="digits-at --set epochs=2")
@click.argument("config", type=FILE, shell_complete=name_or_file("recipes"))
@SET(help="Change a setting of the config.")
@OUT
@click.option("--name", help="Name of the run. Default: the config's file name.")
@RESUME
@DEVICE
def command(config: Path, out: Path, **options: Any) -> None:
    """Train one experiment; print the path of its checkpoint.

    CONFIG is a file, or one of `cembench list recipes`."""
    from cembench.api import train

    say(train(config, out, **options))

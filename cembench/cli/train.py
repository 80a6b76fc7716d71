"""`cembench train`: train one experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cembench.cli.base import DEVICE, FILE, OUT, RESUME, SET, Command, say


@click.command("train", cls=Command)
@click.argument("config", type=FILE)
@SET
@OUT
@click.option("--name", help="Name of the run; the config's file name unless given.")
@RESUME
@DEVICE
def command(
    config: Path, overrides: tuple[str, ...], out: Path, name: str | None, resume: bool, device: str
) -> None:
    """Train one experiment; print the path of its checkpoint."""
    from cembench.api import train

    options: dict[str, Any] = {"name": name, "overrides": overrides, "resume": resume}
    say(train(config, out, device=device, **options))

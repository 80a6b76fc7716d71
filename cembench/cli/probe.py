"""`cembench probe`: fit a classifier to the features of a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cembench.cli.base import DEVICE, FILE, OUT, RESUME, SET, Command, say


@click.command("probe", cls=Command)
@click.argument("checkpoint", type=FILE)
@click.option(
    "--mode",
    default="linear",
    show_default=True,
    type=click.Choice(["linear", "adv-linear", "finetune", "adv-finetune", "knn"]),
)
@SET
@OUT
@click.option("--name", help="Name of the run; NAME-MODE of the probed run unless given.")
@RESUME
@DEVICE
def command(
    checkpoint: Path,
    mode: Any,
    overrides: tuple[str, ...],
    out: Path,
    name: str | None,
    resume: bool,
    device: str,
) -> None:
    """Fit a classifier to the features of a checkpoint.

    Prints the path of the new checkpoint.

    linear and adv-linear train a linear head on frozen features, on clean or on attacked images;
    finetune and adv-finetune train all weights; knn asks the nearest training images.
    """
    from cembench.api import probe

    options: dict[str, Any] = {"name": name, "overrides": overrides, "resume": resume}
    say(probe(checkpoint, mode, out, device=device, **options))

"""`cembench probe`: fit a classifier to the features of a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cembench.cli.base import DEVICE, EXPERIMENT, OUT, RESUME, RUN, SET, SETTINGS, Command, say

MODES = click.Choice(["linear", "adv-linear", "finetune", "adv-finetune", "knn"])


@click.command(
    "probe", cls=Command, settings=EXPERIMENT, example="runs/adv-infonce --mode adv-linear epochs=5"
)
@click.argument("checkpoint", type=RUN)
@SETTINGS
@click.option("--mode", default="linear", type=MODES, help="What is trained, see above.")
@SET(help="The same as KEY=VALUE.")
@OUT
@click.option("--name", help="Name of the run. Default: RUN-MODE.")
@RESUME
@DEVICE
def command(checkpoint: Path, mode: Any, out: Path, **options: Any) -> None:
    """Fit a classifier to the features of a checkpoint.

    Prints the path of the new checkpoint. KEY=VALUE changes a setting of the probe's training.

    linear and adv-linear train a linear head on frozen features, on clean or on attacked images;
    finetune and adv-finetune train all weights; knn asks the nearest training images.
    """
    from cembench.api import probe

    say(probe(checkpoint, mode, out, **options))

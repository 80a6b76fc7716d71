"""Commands that train."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from cembench.cli.base import DEVICE, FILE, Command, fail, say, show
from cembench.suites.launchers import LAUNCHERS
from cembench.util.errors import CembenchError

SET = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a setting."
)
OUT = click.option("--out", type=FILE, default="runs", show_default=True, help="Folder of runs.")
RESUME = click.option("--resume", is_flag=True, help="Go on with an interrupted run.")


@click.command(cls=Command)
@click.argument("config", type=FILE)
@SET
@OUT
@click.option("--name", help="Name of the run; the config's file name unless given.")
@RESUME
@DEVICE
def train(
    config: Path, overrides: tuple[str, ...], out: Path, name: str | None, resume: bool, device: str
) -> None:
    """Train the experiment of a YAML file; print the path of its checkpoint."""
    from cembench.api import train

    options: dict[str, Any] = {"name": name, "overrides": overrides, "resume": resume}
    say(train(config, out, device=device, **options))


@click.command(cls=Command)
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
def probe(
    checkpoint: Path,
    mode: Any,
    overrides: tuple[str, ...],
    out: Path,
    name: str | None,
    resume: bool,
    device: str,
) -> None:
    """Fit a classifier to the features of a checkpoint; print the path of the new checkpoint.

    linear and adv-linear train a linear head on frozen features, on clean or on attacked images;
    finetune and adv-finetune train all weights; knn asks the nearest training images.
    """
    from cembench.api import probe

    options: dict[str, Any] = {"name": name, "overrides": overrides, "resume": resume}
    say(probe(checkpoint, mode, out, device=device, **options))


@click.command(cls=Command)
@click.argument("suite", type=FILE)
@OUT
@click.option("--inception-weights", type=FILE, help="Weights for samples.extractor=inception.")
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    help="Experiments at once: 1 here, all elsewhere, unless given.",
)
@click.option(
    "--launcher",
    default="local",
    type=click.Choice(list(LAUNCHERS)),
    show_default=True,
    help="Where they run: on this machine, on a Ray cluster, on SLURM.",
)
@click.option(
    "--launcher-set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="What ray.init or submitit's executor takes: address=auto, slurm_partition=gpu.",
)
@DEVICE
def run(suite: Path, out: Path, assignments: tuple[str, ...], **options: Any) -> None:
    """Train and evaluate every experiment of a suite file, and rank them.

    What is already done and unchanged is not done twice.
    """
    from cembench.suites.run import run_suite
    from cembench.util.overrides import override

    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise CembenchError("run starts experiments itself (--jobs); give torchrun train or eval")
    settings = override({}, assignments, "--launcher-set")
    boards, failures = run_suite(suite, out, settings=settings, **options)
    show(boards)
    nothing = "nothing was measured: encoders have no accuracies; add probes, or the sampler maxent"
    click.echo(f"tables and records are in {out}" if boards else nothing, err=True)
    if failures:
        fail("; ".join(failures))

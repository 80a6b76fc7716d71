"""`cembench run`: train and evaluate a suite of experiments, and rank them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from cembench.cli.base import DEVICE, FILE, OUT, Command, fail, show
from cembench.suites.launchers import EXTRAS
from cembench.suites.launchers.job import DIVERGED, FAILED, end_with
from cembench.util.errors import CembenchError


@click.command("run", cls=Command)
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
    type=click.Choice(list(EXTRAS)),
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
@click.option("--only", hidden=True, help="Run one experiment, as launchers do; rank nothing.")
@click.option("--digest", hidden=True, help="Refuse to run another one than this identifies.")
@click.option("--parent", type=int, hidden=True, help="End when this process does.")
@DEVICE
def command(
    suite: Path,
    out: Path,
    assignments: tuple[str, ...],
    only: str | None,
    digest: str | None,
    parent: int | None,
    **options: Any,
) -> None:
    """Train, evaluate and rank the experiments of a suite.

    What is already done and unchanged is not done twice.
    """
    if parent is not None:
        end_with(parent)
    from cembench.suites.run import run_one, run_suite
    from cembench.util.overrides import override

    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise CembenchError("run starts experiments itself (--jobs); give torchrun train or eval")
    if only is not None:
        own = {key: options[key] for key in ("device", "inception_weights")}
        outcome = run_one(suite, out, name=only, digest=digest, **own)
        if outcome.failure is not None:
            fail(outcome.failure, DIVERGED if outcome.diverged else FAILED)
        click.echo("done", err=True)
        return
    settings = override({}, assignments, "--launcher-set")
    boards, failures = run_suite(suite, out, settings=settings, **options)
    show(boards)
    nothing = "nothing was measured: encoders have no accuracies; add probes, or the sampler maxent"
    click.echo(f"tables and records are in {out}" if boards else nothing, err=True)
    if failures:
        fail("; ".join(failures))

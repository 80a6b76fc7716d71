"""`cembench run`: train and evaluate a suite of experiments, and rank them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from cembench.cli.base import DEVICE, FILE, KEY_VALUE, OUT, WEIGHTS, Command, fail, show
from cembench.cli.names import name_or_file
from cembench.suites.launchers import EXTRAS
from cembench.suites.launchers.job import DIVERGED, FAILED, end_with
from cembench.util.errors import CembenchError

JOBS = "Experiments at once. Default: 1 on this machine, else all."
LAUNCHER = "Run on this machine, a Ray cluster or SLURM."
LAUNCHER_SET = "Argument of ray.init or submitit: address=auto, …"


@click.command("run", cls=Command, example="quickstart --out runs --jobs 2")
@click.argument("suite", type=FILE, shell_complete=name_or_file("recipes"))
@OUT
@WEIGHTS
@click.option("--jobs", type=click.IntRange(min=1), help=JOBS)
@click.option("--launcher", default="local", type=click.Choice(list(EXTRAS)), help=LAUNCHER)
@KEY_VALUE("--launcher-set", "assignments", help=LAUNCHER_SET)
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

    SUITE is a file, or one of `cembench list recipes`. What is already done and unchanged is not
    done twice.
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

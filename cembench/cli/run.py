"""`cembench run`: train and evaluate a suite of experiments, and rank them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cembench.cli.base import DEVICE, FILE, KEY_VALUE, OUT, WEIGHTS, Command, fail, say, show
from cembench.cli.names import name_or_file
from cembench.suites.launchers import EXTRAS
from cembench.suites.launchers.job import DIVERGED, FAILED
from cembench.suites.launchers.processes import end_with
from cembench.util.errors import CembenchError

if TYPE_CHECKING:
    from cembench.suites.run import SuiteResult

NOTHING = "nothing was measured: encoders have no accuracies; add probes, or the sampler maxent"
JOBS = "Experiments at once; auto: one a core if networks are tiny."
LAUNCHER = "Run on this machine, a Ray cluster or SLURM."
LAUNCHER_SET = "Argument of ray.init or submitit: address=auto, …"


class Jobs(click.ParamType):
    """A number of jobs; None for `auto`."""

    name = "number"

    def convert(
        self, value: Any, parameter: click.Parameter | None, context: click.Context | None
    ) -> int | None:
        """Return the number."""
        if value == "auto":
            return None
        return click.IntRange(min=1).convert(value, parameter, context)


@click.command("run", cls=Command, example="quickstart --out runs --jobs 2")
@click.argument("suite", type=FILE, shell_complete=name_or_file("recipes"))
@OUT
@WEIGHTS
@click.option("--jobs", type=Jobs(), default="auto", help=JOBS)
@click.option("--launcher", default="local", type=click.Choice(["local", *EXTRAS]), help=LAUNCHER)
@KEY_VALUE("--launcher-set", "assignments", help=LAUNCHER_SET)
@click.option("--only", hidden=True, help="Run one experiment, as launchers do; rank nothing.")
@click.option("--digest", hidden=True, help="Refuse to run another one than this identifies.")
@click.option("--parent", type=int, hidden=True, help="End when this process does.")
@click.option("--owner", type=int, hidden=True, help="End when this process does, too.")
@DEVICE
def command(
    suite: Path,
    out: Path,
    assignments: tuple[str, ...],
    only: str | None,
    digest: str | None,
    parent: int | None,
    owner: int | None,
    **options: Any,
) -> None:
    """Train, evaluate and rank the experiments of a suite.

    SUITE is a file, or one of `cembench list recipes`. What is already done and unchanged is not
    done twice.
    """
    if parent is not None:
        end_with(parent, owner)
    from cembench.suites.run import run_one, run_suite
    from cembench.util.overrides import override

    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise CembenchError("run starts experiments itself (--jobs); give torchrun train or eval")
    if only is not None:
        own = {key: options[key] for key in ("device", "inception_weights")}
        outcome = run_one(suite, out, name=only, digest=digest, **own)
        if outcome.failure is not None:
            fail(outcome.failure, DIVERGED if outcome.diverged else FAILED)
        say("done", err=True)
        return
    settings = override({}, assignments, "--launcher-set")
    found = run_suite(suite, out, settings=settings, **options)
    show(found.boards)
    finish(found, out)
    if found.failures:
        fail("; ".join(found.failures))


def finish(found: SuiteResult, out: Path) -> None:
    """Draw figures, now that all numbers are printed, and say where everything is."""
    if not found.boards:
        say(NOTHING, err=True)
        return
    from cembench.reporting.plots.curves import write_missing_curves

    write_missing_curves(found.records)
    say(f"tables and records are in {out}", err=True)
    kinds = {"samples": "samples/*.png", "accuracy over the radius": "eval/*.curve.png"}
    for what, pattern in kinds.items():
        if any(out.glob(f"*/{pattern}")):
            say(f"pictures of {what}: {out}/*/{pattern}", err=True)
    say(f"everything on one page: cembench report {out}", err=True)

"""`cembench run`: train and evaluate a suite of experiments, and rank them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cembench.cli.base import DEVICE, FILE, KEY_VALUE, OUT, WEIGHTS, Command, fail, say, show
from cembench.cli.dry_run import DRY_RUN, placed, show_forecast
from cembench.cli.names import name_or_file
from cembench.suites.launchers import EXTRAS
from cembench.util.errors import CembenchError

if TYPE_CHECKING:
    from cembench.suites.run import SuiteResult, SuiteRun

NOTHING = "nothing was measured: encoders have no accuracies; add probes, or the sampler maxent"
JOBS = "Experiments at once; auto: one a core if networks are tiny."
LAUNCHER = "Run on this machine, a Ray cluster or SLURM."
LAUNCHER_SET = "Argument of ray.init or submitit: address=auto, …"
ENQUEUE = "Only store the suite in --out, for `cembench work`."
MAX_FAILURES = "Stop after so many failures."


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
@click.option("--max-failures", type=click.IntRange(min=1), metavar="N", help=MAX_FAILURES)
@click.option("--enqueue", is_flag=True, help=ENQUEUE)
@DRY_RUN
@DEVICE
def command(
    suite: Path,
    out: Path,
    assignments: tuple[str, ...],
    enqueue: bool,
    dry_run: bool,
    **options: Any,
) -> None:
    """Train, evaluate and rank the experiments of a suite.

    SUITE is a file, or one of `cembench list recipes`. What is already done and unchanged is not
    done twice. Any number of `cembench work` may help, on other machines too.
    """
    from cembench.suites.run import SuiteRun, run_suite
    from cembench.util.overrides import override

    if "TORCHELASTIC_RUN_ID" in os.environ:
        what = "run starts processes itself (--jobs, processes: 4)"
        raise CembenchError(f"{what}; give torchrun train or eval")
    if enqueue:
        given = suite, out, options["device"], options["inception_weights"]
        with SuiteRun(*given).stored(options["max_failures"]) as queue:
            say(f"{len(queue.names)} experiments are in {out}: start cembench work {out}", err=True)
        return
    if dry_run:
        _forecast(SuiteRun(suite, out, options["device"], None), options["jobs"])
        return
    settings = override({}, assignments, "--launcher-set")
    found = run_suite(suite, out, settings=settings, **options)
    show(found.boards)
    finish(found, out)
    if found.left:
        stopped = f"{found.left} experiments were stopped or not begun; run it again to go on"
        found.failures.append(stopped)
    if found.failures:
        fail("; ".join(found.failures))


def _forecast(suite: SuiteRun, jobs: int | None) -> None:
    """Say what a suite will cost, as it would run on this machine."""
    import torch

    from cembench.suites.forecast import Forecaster
    from cembench.suites.sizes import images_of
    from cembench.util.devices import pick_device

    device = suite.device = pick_device(suite.device)
    jobs, threads = suite.shares(jobs, lambda one: images_of(one.data))
    torch.set_num_threads(threads)
    found = Forecaster(suite.protocol, device).all(suite.experiments, suite.out)
    show_forecast(found, suite.experiments, evaluates=True, jobs=jobs, where=placed(device))


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

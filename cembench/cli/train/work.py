"""`cembench work`: take experiments of a stored suite, on any machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cembench.cli.arguments import Device
from cembench.cli.base import FILE, Command, fail, say
from cembench.suites.launchers.processes import end_with
from cembench.suites.leases import PATIENCE
from cembench.util.errors import CembenchError

if TYPE_CHECKING:
    from cembench.suites.queue import Queue

WAIT = "Whether to wait for what other workers have, which may die."
SECONDS = "Seconds without a sign of life until others take over."
OWN_DEVICE = "auto, cpu, cuda, cuda:1, … or mps. Default: the suite's."


@click.command("work", cls=Command, example="/shared/runs --no-wait")
@click.argument("out", type=FILE)
@click.option("--wait/--no-wait", default=True, help=WAIT)
@click.option("--patience", type=click.FloatRange(min=0.5), default=PATIENCE, help=SECONDS)
@click.option("--device", type=Device(), help=OWN_DEVICE)
@click.option("--suite", hidden=True, help="Work on one suite, and rank nothing.")
@click.option("--only", hidden=True, help="Be one of the processes of an experiment.")
@click.option("--parent", type=int, hidden=True, help="End when this process does.")
@click.option("--owner", type=int, hidden=True, help="End when this process does, too.")
def command(
    out: Path,
    wait: bool,
    patience: float,
    device: str | None,
    suite: str | None,
    only: str | None,
    parent: int | None,
    owner: int | None,
) -> None:
    """Take experiments of a stored suite, until all are over.

    `cembench run --enqueue` stores one in OUT; `cembench run` does so too, and may be helped.
    Start as many as you like, on any machine that sees OUT under the same path, and end them as
    you like: another one goes on with what one has begun. The last one ranks the runs.

    SIGTERM and USR1 save the state of the experiment and leave with 143 and 75: start it again.
    """
    from cembench.suites.join import part_of, work_on

    if parent is not None or owner is not None:
        end_with(os.getppid() if parent is None else parent, owner)
    if only is not None:
        part_of(out, str(suite), only, device)
        return
    found = work_on(out, suite, device, wait=wait, patience=patience, tell=_tell)
    if not found:
        raise CembenchError(f"{out}: no suite is stored here; cembench run SUITE --out {out}")
    if suite is None:
        _report(found)


def _tell(text: str) -> None:
    say(text, err=True)


def _report(queues: list[Queue]) -> None:
    """Say how suites stand; a failure ends the command with an error."""
    failures = []
    for queue in queues:
        if not queue.exists:  # the command that stored it has finished, or stored it anew
            _tell(f"{queue.name}: no longer stored here")
            continue
        count = queue.count()
        _tell(f"{queue.name}: {count.text}")
        failures += [f"experiment {name}: {why}" for name, why in queue.failures.items()]
    if failures:
        fail("; ".join(failures))

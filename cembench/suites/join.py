"""Joining a suite that is stored beside its runs, as one of its workers."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cembench.evaluation.record.files import load_record
from cembench.suites.outcomes import Outcome
from cembench.suites.queue import Queue, queues
from cembench.suites.rows import line
from cembench.suites.run import rank
from cembench.suites.runner import Runner
from cembench.suites.worker import Worker
from cembench.util.devices import pick_device
from cembench.util.errors import CembenchError
from cembench.util.files.layout import RunLayout
from cembench.util.registry import load_plugins, named_plugins
from cembench.util.shared import sharing

RANKING = "leaderboards"  # what is claimed to write the tables; no experiment has this name


def work_on(
    out: Path,
    suite: str | None,
    device: str | None,
    *,
    wait: bool,
    patience: float,
    tell: Callable[[str], None],
) -> list[Queue]:
    """Take experiments until all are over, or others have what is left; return the queues.

    Args:
        out: the folder of runs.
        suite: the name of the suite; all that are stored there unless given, which are then ranked.
        device: where an experiment runs, if not where the suite says.
        wait: for what others have.
        patience: seconds without a sign of life after which another process counts as dead.
        tell: is given a line on each experiment that begins or ends.

    Raises:
        CembenchError: when a queue is damaged, needs modules that were not given, or a device that
            this machine does not have.
    """
    found = []
    for name in queues(out) if suite is None else [suite]:
        queue = _entered(out, name)
        chosen = device or queue.plan.device
        pick_device(chosen)  # else all experiments would fail here that others can run
        run = Runner(queue, chosen)
        told = _teller(queue, tell)
        worker = Worker(queue, run, patience=patience, on_change=told)
        with sharing():
            worker.work(wait)
        if suite is None and not worker.claims.left:
            _rank(queue, patience)
        found.append(queue)
        out = queue.out
    return found


def part_of(out: Path, suite: str, name: str, device: str | None) -> None:
    """Be one of the processes of an experiment."""
    queue = _entered(out, suite)
    Runner(queue, device or queue.plan.device).share(name)


def _entered(out: Path, name: str) -> Queue:
    """Read a queue, and go to the folder that its paths start from, if this machine has it.

    Raises:
        CembenchError: when modules that its settings need were not given. A queue does not import
            them by itself: whoever can write a file would run code.
    """
    queue = Queue.read(out, name)
    if missing := [module for module in queue.plan.plugins if module not in named_plugins()]:
        words = " ".join(f"--plugin {module}" for module in missing)
        raise CembenchError(f"{out}: the experiments of {name} need {words}")
    load_plugins()
    place = Path(queue.plan.place)
    if place.is_dir() and not place.samefile(Path.cwd()):
        queue = Queue(out.absolute(), name, queue.plan)
        os.chdir(place)
    return queue


def _teller(queue: Queue, tell: Callable[[str], None]) -> Callable[[str, Outcome | None], None]:
    def told(name: str, outcome: Outcome | None) -> None:
        if outcome is None:
            tell(f"{name}: begun")
        elif outcome.failure is not None:
            tell(f"{name}: failed: {' '.join(outcome.failure.split())}")
        else:
            text = "done"
            with suppress(CembenchError):  # nothing was measured
                text = line(load_record(queue.layout(name).record(queue.protocol.name)))
            tell(f"{name}: {text}")

    return told


def _rank(queue: Queue, patience: float) -> None:
    """Write the tables of all runs, unless another worker does."""

    def run(name: str, diverged: str | None) -> Outcome:
        if RunLayout.records_below(queue.out):
            rank(queue.out)
        return Outcome()

    Worker(queue, run, [RANKING], logged=False, patience=patience).work()

"""Processes on this machine that run experiments side by side, one after the other in each."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from cembench.suites.launchers.job import Outcome, Started, ended
from cembench.suites.launchers.processes import end_group, end_with
from cembench.util.devices import cores
from cembench.util.errors import CembenchError
from cembench.util.stopping import held_signals, release_signals

Run = Callable[[str], Outcome]


class Work(NamedTuple):
    """What a worker does; it is sent to it once.

    Attributes:
        run: runs the experiment of a name.
        log_of: returns the file that the output of an experiment is appended to.
        threads: of the process.
        plugins: modules that it imports first.
    """

    run: Run
    log_of: Callable[[str], Path]
    threads: int
    plugins: Sequence[str]


@contextmanager
def workers(work: Work, jobs: int, gpus: Sequence[str] = ()) -> Iterator[Callable[[str], Started]]:
    """Start processes, and yield a function that starts an experiment in one that is free.

    A process stays for the next experiment, so it imports everything and loads data once. One that
    died is replaced. All end when this does.

    Args:
        work: what they do.
        jobs: how many there are.
        gpus: assigned to them in turn.
    """
    own = [gpus[number % len(gpus)] if gpus else None for number in range(jobs)]
    slots: dict[int, _Worker] = {}

    def fill(number: int) -> None:
        with held_signals():
            slots[number] = _Worker(work, own[number])

    def start(name: str) -> Started:
        number = next(n for n, worker in slots.items() if worker.idle)
        if slots[number].died:
            slots[number].end()
            fill(number)
        worker = slots[number]
        worker.start(name)
        return lambda: worker.poll(work.log_of(name))

    try:
        for number in range(jobs):
            fill(number)
        yield start
    finally:
        with held_signals():
            for worker in slots.values():
                worker.end()


class _Worker:
    """A process, as the one that started it sees it."""

    def __init__(self, work: Work, gpu: str | None) -> None:
        fork = gpu is None and work.threads == 1 and may_fork()
        context: Any = multiprocessing.get_context("fork" if fork else "spawn")
        self.connection, theirs = context.Pipe()
        self.idle = True
        changed = {"OMP_NUM_THREADS": str(work.threads)}
        changed |= {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
        before = {key: os.environ.get(key) for key in changed}
        os.environ.update(changed)  # libraries of a spawned process read them when they are loaded
        try:
            self.process = context.Process(target=_serve, args=(work, theirs, os.getpid()))
            self.process.start()
        finally:
            for key, value in before.items():
                os.environ.pop(key) if value is None else os.environ.update({key: value})
        theirs.close()

    @property
    def died(self) -> bool:
        """Whether its process has ended; what it started may hold its end of the connection."""
        return not self.process.is_alive()

    def start(self, name: str) -> None:
        self.idle = False
        with contextlib.suppress(OSError):  # it has died; `poll` says how
            self.connection.send(name)

    def poll(self, log: Path) -> Outcome | None:
        """Return the outcome of its experiment; None while it runs."""
        if not (self.connection.poll() or self.died):
            return None
        self.idle = True
        try:
            if self.connection.poll():
                outcome: Outcome = self.connection.recv()
                return outcome
        except (EOFError, OSError):
            pass
        self.end()
        return ended(self.process.exitcode or 1, log)

    def end(self) -> None:
        """Kill its process, if it still runs, and all that this one has started."""
        end_group(self.process.pid)
        self.process.kill()
        self.process.join()


def may_fork() -> bool:
    """Return whether a process may be forked, which imports nothing again.

    Neither threads nor the driver of a GPU survive it. Those of OpenMP do not either, so a fork
    that wanted more than one thread would wait for ever.
    """
    return sys.platform == "linux" and threading.active_count() == 1


def _serve(work: Work, connection: Connection, parent: int) -> None:
    """Run the experiments of the names that arrive, until the process that sends them ends."""
    end_with(parent)
    release_signals()
    import threadpoolctl
    import torch

    from cembench.util.registry import add_plugin
    from cembench.util.shared import sharing

    for module in work.plugins:
        add_plugin(module)
    torch.set_num_threads(work.threads)
    with sharing(), threadpoolctl.threadpool_limits(work.threads):
        for name in iter(connection.recv, None):
            log = work.log_of(name)
            with _written_to(log):
                outcome = _outcome(work.run, name, log)
            connection.send(outcome)


def _outcome(run: Run, name: str, log: Path) -> Outcome:
    try:
        return run(name)
    except Exception as error:
        traceback.print_exc()
        return Outcome(f"unexpected {error!r}; {log} shows where")


@contextmanager
def _written_to(log: Path) -> Iterator[None]:
    """Append all output of this process to a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", buffering=1, errors="replace") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
        with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
            yield


def threads(jobs: int) -> int:
    """Return how many threads each of several jobs may use: its share, or fewer if so told."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    share = cores() // jobs
    return max(1, min(share, int(given))) if given.isdigit() else share


def gpus() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = given.split(",") if given else map(str, range(torch.cuda.device_count()))
    return [name.strip() for name in names]


def require_cores(jobs: int) -> None:
    """Refuse more jobs than cores.

    Raises:
        CembenchError: saying how many cores there are.
    """
    if jobs > cores():
        raise CembenchError(f"--jobs {jobs}: this machine has {cores()} cores")

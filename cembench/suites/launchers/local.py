"""On this machine: in this process, or in several side by side that share its cores and GPUs."""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

from cembench.suites.launchers import DIED, Job, Launcher, Outcome
from cembench.suites.launchers.worker import work
from cembench.util.errors import CembenchError


class Running(NamedTuple):
    """A process at work, and its place among those side by side."""

    process: BaseProcess
    pipe: Connection
    slot: int


class Local(Launcher):
    """One process an experiment, started when another is over."""

    def __init__(self, out: Path, jobs: int | None, device: str, settings: dict[str, Any]) -> None:
        if settings:
            raise CembenchError("--launcher-set: the launcher local has no settings")
        self.jobs = jobs or 1
        if self.jobs > cores():
            raise CembenchError(f"--jobs {self.jobs}: this machine has {cores()} cores")
        self._threads = max(1, cores() // self.jobs)
        self._gpus = gpus() if device == "cuda" else []
        self._running: dict[str, Running] = {}

    def start(self, job: Job) -> None:
        """Begin an experiment in a fresh process."""
        taken = {running.slot for running in self._running.values()}
        slot = min(set(range(self.jobs or 1)) - taken)
        job = replace(job, environment=self._environment(slot))
        context = mp.get_context("spawn")
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_serve, args=(job, theirs), daemon=True)
        with _deaf_to_interrupts():
            process.start()
        theirs.close()
        self._running[job.name] = Running(process, ours, slot)

    def wait(self, seconds: float) -> list[tuple[str, Outcome]]:
        """Return those that are over."""
        wait([running.process.sentinel for running in self._running.values()], seconds)
        over = [name for name, it in self._running.items() if not it.process.is_alive()]
        return [(name, _outcome(self._running.pop(name))) for name in over]

    def stop(self) -> None:
        """Terminate the processes."""
        for running in self._running.values():
            running.process.terminate()
        for running in self._running.values():
            running.process.join()
        self._running.clear()

    def _environment(self, slot: int) -> dict[str, str]:
        given = os.environ.get("OMP_NUM_THREADS", "")
        threads = min(self._threads, int(given)) if given.isdigit() else self._threads
        found = {"OMP_NUM_THREADS": str(max(1, threads))}
        if self._gpus:
            found["CUDA_VISIBLE_DEVICES"] = self._gpus[slot % len(self._gpus)]
        return found


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def gpus() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = given.split(",") if given else map(str, range(torch.cuda.device_count()))
    return [name.strip() for name in names]


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Let Ctrl-C reach this process alone, a little later: those started meanwhile block it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(job: Job, pipe: Connection) -> None:
    threading.Thread(target=_follow_parent, daemon=True).start()
    pipe.send(work(job))


def _follow_parent() -> None:
    """End when the command is killed: nothing would start again what goes wrong from then on."""
    parent = mp.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _outcome(running: Running) -> Outcome:
    code = running.process.exitcode or 0
    with running.pipe as pipe, suppress(EOFError):  # it died before it could say
        outcome: Outcome = pipe.recv()
        return outcome
    if code < 0:
        return Outcome(f"its process was killed by {signal.Signals(-code).name}; {DIED}")
    return Outcome(f"its process ended with code {code}; {DIED}")

"""Workers on this machine: processes that take experiments of a queue."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from cembench.suites.launchers.job import Poll, ending
from cembench.suites.launchers.processes import end_group, end_with, wait_to_save
from cembench.util.devices import cores
from cembench.util.errors import CembenchError
from cembench.util.stopping import ending as ending_by_signal
from cembench.util.stopping import held_signals, interruptible_apart

Start = Callable[[Sequence[int]], list[Poll]]  # workers of these numbers


class Work(NamedTuple):
    """What a worker does; it is sent to it once.

    Attributes:
        take: takes experiments until all are over.
        threads: of the process.
        plugins: modules that it imports first.
    """

    take: Callable[[], None]
    threads: int
    plugins: Sequence[str]


@contextmanager
def workers(work: Work, gpus: Sequence[str] = ()) -> Iterator[Start]:
    """Yield a function that starts workers of some numbers, in place of those that died.

    A worker stays for all experiments, so it imports everything and loads data once. When this
    ends, those that still run are asked to save their state, and end.

    Args:
        work: what they do.
        gpus: what each one sees, by its number; they are assigned in turn.
    """
    running: dict[int, Any] = {}

    def start(numbers: Sequence[int]) -> list[Poll]:
        for number in numbers:
            if number in running:
                _end(running[number])
            with held_signals():
                running[number] = _process(work, gpus[number % len(gpus)] if gpus else None)
        return [partial(_poll, running[number]) for number in numbers]

    try:
        yield start
    finally:
        with contextlib.suppress(KeyboardInterrupt):
            _ask_to_end(list(running.values()))
        with held_signals():
            for process in running.values():
                _end(process)


def _process(work: Work, gpu: str | None) -> Any:
    """Start a process."""
    fork = gpu is None and work.threads == 1 and may_fork()
    context: Any = multiprocessing.get_context("fork" if fork else "spawn")
    changed = {"OMP_NUM_THREADS": str(work.threads)}
    changed |= {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
    before = {key: os.environ.get(key) for key in changed}
    os.environ.update(changed)  # libraries of a spawned process read them when they are loaded
    try:
        process = context.Process(target=_serve, args=(work, os.getpid()))
        process.start()
    finally:
        for key, value in before.items():
            os.environ.pop(key) if value is None else os.environ.update({key: value})
    return process


def _poll(process: Any) -> str | None:
    if process.is_alive():
        return None
    _end(process)
    return ending(process.exitcode)


def _ask_to_end(processes: list[Any]) -> None:
    """Have processes save their state and end, as far as there is time; a signal cuts it short."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError, TypeError):  # it has ended, or never began
            os.kill(process.pid, signal.SIGTERM)
    wait_to_save(lambda: any(process.is_alive() for process in processes))


def _end(process: Any) -> None:
    """Kill a process, if it still runs, and all that it has started."""
    end_group(process.pid)
    process.kill()
    process.join()


def may_fork() -> bool:
    """Return whether a process may be forked, which imports nothing again.

    Neither threads nor the driver of a GPU survive it. Those of OpenMP do not either, so a fork
    that wanted more than one thread would wait for ever.
    """
    return sys.platform == "linux" and threading.active_count() == 1


def _serve(work: Work, parent: int) -> None:
    """Take experiments until all are over, a signal comes, or the parent ends."""
    end_with(parent)
    try:
        with interruptible_apart():
            _take(work)
    except KeyboardInterrupt:
        sys.exit(ending_by_signal().code)
    except (CembenchError, OSError) as error:
        sys.stderr.write(f"cembench: a worker ended: {error}\n")
        sys.exit(1)


def _take(work: Work) -> None:
    import threadpoolctl
    import torch

    from cembench.util.registry import add_plugin
    from cembench.util.shared import sharing

    for module in work.plugins:
        add_plugin(module)
    torch.set_num_threads(work.threads)
    with sharing(), threadpoolctl.threadpool_limits(work.threads):
        work.take()


def threads(jobs: int) -> int:
    """Return how many threads each of several jobs may use: its share, or fewer if so told."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    share = cores() // jobs
    return max(1, min(share, int(given))) if given.isdigit() else share


def gpus(each: int = 1) -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them.

    Args:
        each: how many a worker sees; fewer where there are not as many.
    """
    import torch

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = given.split(",") if given else map(str, range(torch.cuda.device_count()))
    own = [name.strip() for name in names]
    return [",".join(own[n : n + each]) for n in range(0, max(1, len(own) - each + 1), each)]


def require_cores(jobs: int) -> None:
    """Refuse more jobs than cores.

    Raises:
        CembenchError: saying how many cores there are.
    """
    if jobs > cores():
        raise CembenchError(f"--jobs {jobs}: this machine has {cores()} cores")

"""Jobs on this machine, side by side: they share its cores and its GPUs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cembench.suites.launchers.job import Job, Outcome, Started, StartJob
from cembench.util.errors import CembenchError


@contextmanager
def launcher(out: Path, jobs: int, device: str, settings: dict[str, Any]) -> Iterator[StartJob]:
    """Start a process per job, in one of as many slots, each with its threads and its GPU."""
    if settings:
        raise CembenchError("--launcher-set: the launcher local has no settings")
    if jobs > cores():
        raise CembenchError(f"--jobs {jobs}: this machine has {cores()} cores")
    names = gpus() if device == "cuda" else []
    processes: dict[int, subprocess.Popen[bytes]] = {}

    def start(job: Job) -> Started:
        slot = next(n for n in range(jobs) if n not in processes or processes[n].poll() is not None)
        environment = {"OMP_NUM_THREADS": str(threads(jobs))}
        if names:
            environment["CUDA_VISIBLE_DEVICES"] = names[slot % len(names)]
        try:
            process = processes[slot] = job.start(environment)
        except OSError as error:
            return Outcome(str(error))
        return lambda: job.outcome(process.poll())

    try:
        yield start
    finally:
        for process in processes.values():
            process.kill()
            process.wait()


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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

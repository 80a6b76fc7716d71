"""Jobs on SLURM, through submitit; its clusters `local` and `debug` need no SLURM."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import submitit
from submitit.helpers import Checkpointable

from cembench.suites.launchers.job import RESUME_HINT, Job, Outcome, Started, StartJob

MINUTES = 240
# SLURM sends these to every process of a job; submitit answers them, in the process around it.
# Windows has the first of them alone.
ANSWERED = tuple(s for s in signal.Signals if s.name in ("SIGTERM", "SIGUSR1", "SIGUSR2"))


class Requeued(Checkpointable):
    """A job that is queued again, and resumes, when its time is over or it is preempted."""

    def __call__(self, job: Job) -> int:
        """Run the job and return its exit code."""
        return job.run(blocked=ANSWERED)


@contextmanager
def launcher(
    out: Path, jobs: int | None, device: str, settings: dict[str, Any]
) -> Iterator[StartJob]:
    """Submit each job to SLURM; `cluster` chooses where, other settings are of the executor."""
    executor = submitit.AutoExecutor(out / ".submitit", cluster=settings.pop("cluster", "slurm"))
    gpus = {"gpus_per_node": 1} if device == "cuda" else {}
    executor.update_parameters(**{"name": "cembench", "timeout_min": MINUTES, **gpus, **settings})
    running: set[submitit.Job[int]] = set()
    owner = os.getpid() if executor.cluster == "local" else None

    def start(job: Job) -> Started:
        submitted = executor.submit(Requeued(), job._replace(owner=owner))
        running.add(submitted)

        def poll() -> Outcome | None:
            if not submitted.done():
                return None
            running.discard(submitted)
            try:
                return job.outcome(submitted.result())
            except submitit.core.utils.UncompletedJobError:
                where = f"its job {submitted.job_id} died, see {submitted.paths.stderr}"
                return Outcome(f"{where}; {RESUME_HINT}")

        return poll

    try:
        yield start
    finally:
        for submitted in running:
            submitted.cancel()

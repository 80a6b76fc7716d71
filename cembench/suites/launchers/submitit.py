"""Jobs on SLURM, through submitit; its clusters `local` and `debug` need no SLURM."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import submitit
from submitit.helpers import Checkpointable, DelayedSubmission

from cembench.suites.launchers.job import RESUME_HINT, Job, Outcome, Started, StartJob

MINUTES = 240
SAVING = 60.0  # seconds that a job has to save its state; SLURM signals 90 before the time limit
# SLURM sends these to every process of a job; submitit answers them, in the process around it.
# Windows has the first of them alone.
ANSWERED = tuple(s for s in signal.Signals if s.name in ("SIGTERM", "SIGUSR2"))


class Requeued(Checkpointable):
    """A job that is queued again, and resumes, when its time is over or it is preempted."""

    def __call__(self, job: Job) -> int:
        """Run the job and return its exit code."""
        return job.run(ANSWERED, self._keep)

    def _keep(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def checkpoint(self, job: Job) -> DelayedSubmission:
        """Have the job save its state and end, and return what is queued again.

        This comes within `Popen.wait`, which cannot be called a second time.
        """
        self.process.send_signal(signal.SIGUSR1)
        end = time.monotonic() + SAVING
        while _runs(self.process.pid) and time.monotonic() < end:
            time.sleep(0.1)
        return DelayedSubmission(Requeued(), job)


def _runs(child: int) -> bool:
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


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

"""Workers on SLURM, through submitit; its clusters `local` and `debug` need no SLURM."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import submitit
from submitit.helpers import Checkpointable, DelayedSubmission

from cembench.suites.launchers.job import Job, Poll
from cembench.suites.launchers.processes import wait_to_save
from cembench.suites.launchers.settings import Request, StartJobs
from cembench.suites.outcomes import RESUME_HINT

MINUTES = 240
REQUEUES = 1000  # of a job whose time is over; submitit itself gives up after three
LARGEST = 1000  # jobs of an array; SLURM's MaxArraySize is 1001 unless a site changes it
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
        wait_to_save(lambda: _runs(self.process.pid))
        return DelayedSubmission(Requeued(), job)


def _runs(child: int) -> bool:
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


@contextmanager
def launcher(request: Request) -> Iterator[StartJobs]:
    """Submit workers as job arrays; `cluster` chooses where, other settings are of the executor."""
    settings = request.settings
    executor = submitit.AutoExecutor(
        request.folder,
        cluster=settings.pop("cluster", "slurm"),
        slurm_max_num_timeout=REQUEUES,
    )
    gpus = {"gpus_per_node": request.processes} if request.device == "cuda" else {}
    cores = {"cpus_per_task": request.processes} if request.processes > 1 else {}
    chosen = {"name": "cembench", "timeout_min": MINUTES, **gpus, **cores, **settings}
    executor.update_parameters(**chosen)
    running: set[submitit.Job[int]] = set()
    owner = os.getpid() if executor.cluster == "local" else None

    def start(jobs: Sequence[Job]) -> list[Poll]:
        owned = [job._replace(owner=owner) for job in jobs]
        parts = [owned[first : first + LARGEST] for first in range(0, len(owned), LARGEST)]
        submitted = [one for part in parts for one in executor.map_array(Requeued(), part)]
        running.update(submitted)
        return [partial(_poll, *pair, running) for pair in zip(jobs, submitted, strict=True)]

    try:
        yield start
    finally:
        for submitted in running:
            submitted.cancel()


def _poll(job: Job, submitted: submitit.Job[int], running: set[submitit.Job[int]]) -> str | None:
    if not submitted.done():
        return None
    running.discard(submitted)
    try:
        return job.ending(submitted.result())
    except submitit.core.utils.UncompletedJobError:
        where = f"a job ({submitted.job_id}) died, see {submitted.paths.stderr}"
        return f"{where}; {RESUME_HINT}"

"""On SLURM, through submitit; its clusters `local` and `debug` need none."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from cembench.suites.launchers import DIED, Job, Launcher, Outcome
from cembench.suites.launchers.worker import work
from cembench.util.errors import CembenchError

try:
    import submitit
    from submitit.helpers import Checkpointable
except ImportError as error:
    hint = "pip install 'cembench[slurm]'"
    raise CembenchError(f"--launcher submitit: not installed; {hint}") from error

MINUTES = 240
POLL = 0.5  # seconds


class Resumed(Checkpointable):
    """An experiment that SLURM may start again when its time is over, or it is preempted."""

    def __call__(self, job: Job) -> Outcome:
        """Do the experiment, or go on with it."""
        return work(job)


class Submitit(Launcher):
    """One SLURM job an experiment; `cluster` chooses where, the rest is of the executor."""

    def __init__(self, out: Path, jobs: int | None, device: str, settings: dict[str, Any]) -> None:
        self.jobs = jobs
        settings = dict(settings)
        cluster = settings.pop("cluster", "slurm")
        usual = {"name": "cembench", "timeout_min": MINUTES}
        if device == "cuda":
            usual["gpus_per_node"] = 1
        try:
            self._executor = submitit.AutoExecutor(out / ".submitit", cluster=cluster)
            self._executor.update_parameters(**{**usual, **settings})
        except (AssertionError, NameError, RuntimeError, TypeError, ValueError) as error:
            raise CembenchError(f"--launcher submitit: {error}") from error
        self._running: dict[str, submitit.Job[Outcome]] = {}

    def start(self, job: Job) -> None:
        """Submit an experiment.

        Raises:
            CembenchError: when SLURM refuses it.
        """
        try:
            self._running[job.name] = self._executor.submit(Resumed(), job)
        except (submitit.core.utils.FailedJobError, RuntimeError) as error:
            raise CembenchError(f"--launcher submitit: {error}") from error

    def wait(self, seconds: float) -> list[tuple[str, Outcome]]:
        """Return those that are over."""
        end = time.monotonic() + seconds
        while not (over := [name for name, job in self._running.items() if job.done()]):
            if time.monotonic() > end:
                break
            time.sleep(POLL)
        return [(name, _outcome(self._running.pop(name))) for name in over]

    def stop(self) -> None:
        """Cancel the jobs."""
        for job in self._running.values():
            job.cancel()
        self._running.clear()


def _outcome(job: Any) -> Outcome:
    try:
        outcome: Outcome = job.result()
        return outcome
    except (submitit.core.utils.UncompletedJobError, submitit.core.utils.FailedJobError):
        return Outcome(f"its job {job.job_id} died, see {job.paths.stderr}; {DIED}")

"""On a Ray cluster, or on one that Ray starts on this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from cembench.suites.launchers import DIED, Job, Launcher, Outcome
from cembench.suites.launchers.worker import work
from cembench.util.errors import CembenchError

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
try:
    import ray
except ImportError as error:
    raise CembenchError("--launcher ray: not installed; pip install 'cembench[ray]'") from error


class Ray(Launcher):
    """One task an experiment; `task.num_cpus` and the like are of each, the rest of `ray.init`."""

    def __init__(self, out: Path, jobs: int | None, device: str, settings: dict[str, Any]) -> None:
        self.jobs = jobs
        settings = dict(settings)
        task = settings.pop("task", {})
        local = {} if "address" in settings else {"include_dashboard": False}
        quiet = {"log_to_driver": False, "logging_level": "error", "configure_logging": True}
        try:
            ray.init(**{**quiet, **local, **settings})
            has_gpus = device != "cpu" and ray.cluster_resources().get("GPU", 0) > 0
            # A fresh process each: threads are set before torch is there, and GPUs are left empty.
            usual = {"num_gpus": int(has_gpus), "max_retries": 0, "max_calls": 1}
            self._work = ray.remote(**{**usual, **task})(work)
        except (RuntimeError, TypeError, ValueError, OSError) as error:
            raise CembenchError(f"--launcher ray: {error}") from error
        self._running: dict[Any, str] = {}

    def start(self, job: Job) -> None:
        """Begin an experiment."""
        self._running[self._work.remote(job)] = job.name

    def wait(self, seconds: float) -> list[tuple[str, Outcome]]:
        """Return those that are over."""
        waiting = list(self._running)
        over, _ = ray.wait(waiting, num_returns=1, timeout=seconds)
        return [(self._running.pop(ref), _outcome(ref)) for ref in over]

    def stop(self) -> None:
        """Leave the cluster, which ends the tasks."""
        ray.shutdown()


def _outcome(ref: Any) -> Outcome:
    try:
        outcome: Outcome = ray.get(ref)
        return outcome
    except ray.exceptions.RayError as error:
        kind = type(error).__name__
        return Outcome(f"its Ray worker died ({kind}); {DIED}")

"""Jobs on a Ray cluster, or on one that Ray starts on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import ray

from cembench.suites.launchers.job import RESUME_HINT, Job, Outcome, StartJob
from cembench.util.stopping import kept_handlers


@contextmanager
def launcher(
    out: Path, jobs: int | None, device: str, settings: dict[str, Any]
) -> Iterator[StartJob]:
    """Start a task per job; `task.num_cpus` and the like are of each, the rest of `ray.init`."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    task = settings.pop("task", {})
    local = {} if "address" in settings else {"include_dashboard": False}
    quiet = {"log_to_driver": False, "logging_level": "error", "configure_logging": True}
    with kept_handlers():
        ray.init(**{**quiet, **local, **settings})
    try:
        has_gpus = device != "cpu" and ray.cluster_resources().get("GPU", 0) > 0
        run = ray.remote(**{"num_gpus": int(has_gpus), "max_retries": 0, **task})(Job.run)
        yield lambda job: partial(_poll, job, run.remote(job))
    finally:
        ray.shutdown()


def _poll(job: Job, task: Any) -> Outcome | None:
    if not ray.wait([task], timeout=0)[0]:
        return None
    try:
        return job.outcome(ray.get(task))
    except ray.exceptions.RayTaskError as error:
        hint = "every node must see the folders of suite and runs"
        return Outcome(f"its Ray task failed: {error.cause}; {hint}")
    except ray.exceptions.RayError as error:
        return Outcome(f"its Ray worker died ({type(error).__name__}); {RESUME_HINT}")

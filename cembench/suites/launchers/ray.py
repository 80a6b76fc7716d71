"""Workers on a Ray cluster, or on one that Ray starts on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import ray

from cembench.suites.launchers.job import Job
from cembench.suites.launchers.settings import Request, StartJobs
from cembench.suites.outcomes import RESUME_HINT
from cembench.util.errors import CembenchError
from cembench.util.stopping import kept_handlers

RETRIES = 3  # of a task whose node is lost


@contextmanager
def launcher(request: Request) -> Iterator[StartJobs]:
    """Start a task per worker; `task.num_cpus` and the like are of each, the rest of `ray.init`."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    settings = request.settings
    task = settings.pop("task", {})
    local = {} if "address" in settings else {"include_dashboard": False}
    quiet = {"log_to_driver": False, "logging_level": "error", "configure_logging": True}
    with kept_handlers():
        ray.init(**{**quiet, **local, **settings})
    try:
        gpus = request.device != "cpu" and ray.cluster_resources().get("GPU", 0) > 0
        own: dict[str, Any] = {"num_gpus": request.processes * gpus, "max_retries": RETRIES}
        if request.processes > 1 and not gpus:
            own["num_cpus"] = request.processes
        run = ray.remote(**{**own, **task})(Job.run)
        yield lambda jobs: [partial(_poll, job, run.remote(job)) for job in jobs]
    finally:
        ray.shutdown()


def _poll(job: Job, task: Any) -> str | None:
    if not ray.wait([task], timeout=0)[0]:
        return None
    try:
        return job.ending(ray.get(task))
    except ray.exceptions.RayTaskError as error:
        hint = "every node must see the folders of suite and runs"
        raise CembenchError(f"a Ray task failed: {error.cause}; {hint}") from error
    except ray.exceptions.RayError as error:
        return f"a Ray worker died ({type(error).__name__}); {RESUME_HINT}"

"""Launchers: where the experiments of a suite run: on this machine, on a Ray cluster, on SLURM.

`local` has processes that run several experiments each. The others are modules with a context
manager `launcher(out, jobs, device, settings)`. It yields a function that starts a job, and stops
what still runs in the end. None imports torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from cembench.suites.launchers.job import Job, Started, StartJob
from cembench.util.errors import CembenchError

EXTRAS = {"ray": "ray", "submitit": "slurm"}  # what installs each


@contextmanager
def open_launcher(
    name: str, out: Path, jobs: int | None, device: str, settings: dict[str, Any]
) -> Iterator[StartJob]:
    """Open a launcher for as many jobs at once; it yields a function that starts one.

    Raises:
        CembenchError: for a package that is not installed, settings that the launcher does not
            take, and a job that it refuses.
    """
    with ExitStack() as stack:
        with _blamed_on(name):
            module = importlib.import_module(f"{__name__}.{name}")
            start = stack.enter_context(module.launcher(out, jobs, device, dict(settings)))

        def start_job(job: Job) -> Started:
            with _blamed_on(name):
                started: Started = start(job)
                return started

        yield start_job


@contextmanager
def _blamed_on(name: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        hint = f"pip install 'cembench[{EXTRAS[name]}]'"
        raise CembenchError(f"--launcher {name}: not installed; {hint}") from error
    except (AssertionError, NameError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise CembenchError(f"--launcher {name}: {error}") from error

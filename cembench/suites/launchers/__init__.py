"""Launchers: where the workers of a suite run: on this machine, on a Ray cluster, on SLURM.

`local` has processes of this machine. The others are modules with a context manager `launcher`,
which takes a `Request`. It yields a function that starts workers by their command lines, and stops
what still runs in the end. None imports torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from cembench.suites.launchers.job import Job, Poll
from cembench.suites.launchers.settings import Request, StartJobs
from cembench.util.errors import CembenchError

EXTRAS = {"ray": "ray", "submitit": "slurm"}  # what installs each


@contextmanager
def open_launcher(name: str, request: Request) -> Iterator[StartJobs]:
    """Open a launcher; it yields a function that starts workers.

    Raises:
        CembenchError: for a package that is not installed, settings that the launcher does not
            take, and a job that it refuses.
    """
    with ExitStack() as stack:
        with _blamed_on(name):
            module = importlib.import_module(f"{__name__}.{name}")
            start = stack.enter_context(module.launcher(request))

        def start_jobs(jobs: Sequence[Job]) -> list[Poll]:
            with _blamed_on(name):
                started: list[Poll] = start(jobs)
                return started

        yield start_jobs


@contextmanager
def _blamed_on(name: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        hint = f"pip install 'cembench[{EXTRAS[name]}]'"
        raise CembenchError(f"--launcher {name}: not installed; {hint}") from error
    except (AssertionError, NameError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise CembenchError(f"--launcher {name}: {error}") from error

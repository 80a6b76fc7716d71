"""What a launcher is asked for, and the functions that it yields."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cembench.suites.launchers.job import Job, Poll

StartJobs = Callable[[Sequence[Job]], list[Poll]]


class Request(NamedTuple):
    """What a launcher is asked for.

    Attributes:
        folder: for files of its own, which all machines see.
        device: where an experiment runs.
        processes: the most that an experiment has.
        settings: what the launcher takes.
    """

    folder: Path
    device: str
    processes: int
    settings: dict[str, Any]

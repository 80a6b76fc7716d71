"""Trackers by name: services and files that show the history of a run, besides `history.csv`.

Trackers never affect results: they are no part of an experiment's identity, and one that fails logs
a warning.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from cembench.util.errors import CembenchError
from cembench.util.files import write_text
from cembench.util.registry import Registry
from cembench.util.settings import Choice


@dataclass(frozen=True)
class RunInfo:
    """Description of the run for trackers.

    Attributes:
        folder: run folder, where a tracker may keep files of its own.
        name: name of the run.
        config: resolved experiment.
        resumed: whether epochs were done before.
    """

    folder: Path
    name: str
    config: dict[str, Any]
    resumed: bool

    def id_of(self, tracker: str, create: Callable[[], str]) -> str:
        """Return the run's id at a service: that of `RUN/TRACKER.id` if resumed, or a new one."""
        path = self.folder / f"{tracker}.id"
        if self.resumed and path.exists():
            return path.read_text().strip()
        created = create()
        write_text(path, f"{created}\n")
        return created


class TrackerRun(ABC):
    """Open run of one tracker.

    Attributes:
        known: last epoch that the tracker already has; later epochs are written.
    """

    known: int = 0

    @abstractmethod
    def write(self, epoch: int, values: Mapping[str, float]) -> None:
        """Store the values of an epoch by tag, such as `train/loss`, durably."""

    @abstractmethod
    def close(self, failed: bool) -> None:
        """Record the end of the run, finished or failed."""


class Tracker(Choice):
    """Service or file that shows histories.

    Attributes:
        package: Python package that it needs, if any.
    """

    package: ClassVar[str | None] = None

    def require(self) -> None:
        """Refuse a tracker whose package is missing.

        Raises:
            CembenchError: saying how to install it.
        """
        if self.package is not None and find_spec(self.package) is None:
            raise CembenchError(f"tracker {self.name}: pip install {self.package}")

    @abstractmethod
    def open(self, run: RunInfo) -> TrackerRun:
        """Begin or resume to track a run, with its name and its resolved settings."""


trackers: Registry[Tracker] = Registry(
    "tracker",
    Tracker,
    {
        "tensorboard": "cembench.training.trackers.tensorboard:TensorBoard",
        "wandb": "cembench.training.trackers.wandb:Wandb",
        "mlflow": "cembench.training.trackers.mlflow:MLflow",
    },
)

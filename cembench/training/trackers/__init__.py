"""Where the history of a run can be followed, besides its `history.csv`, by name.

A tracker looks on: it is no part of an experiment's identity, and no failure of it ends a run.
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
    """A run that is followed.

    Attributes:
        folder: its folder, where a tracker may keep files of its own.
        name: of the run.
        config: the resolved experiment.
        begun: whether epochs were done before, so that this goes on with it.
    """

    folder: Path
    name: str
    config: dict[str, Any]
    begun: bool

    def kept_id(self, tracker: str, create: Callable[[], str]) -> str:
        """Return a service's own name of the run: that of `RUN/TRACKER.id`, or a new one."""
        path = self.folder / f"{tracker}.id"
        if self.begun and path.exists():
            return path.read_text().strip()
        own = create()
        write_text(path, f"{own}\n")
        return own


class TrackerRun(ABC):
    """A run as one tracker sees it.

    Attributes:
        known: the last epoch that the tracker has already; later ones are written.
    """

    known: int = 0

    @abstractmethod
    def write(self, epoch: int, values: Mapping[str, float]) -> None:
        """Take the figures of an epoch by tag (`train/loss`) and keep them whatever comes next."""

    @abstractmethod
    def close(self, failed: bool) -> None:
        """Say that the run came to its end, or was cut short."""


class Tracker(Choice):
    """Something that shows histories.

    Attributes:
        package: what must be installed for it, if anything.
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
        """Begin to track a run, with its name and its resolved settings, or go on with it."""


trackers: Registry[Tracker] = Registry(
    "tracker",
    Tracker,
    {
        "tensorboard": "cembench.training.trackers.tensorboard:TensorBoard",
        "wandb": "cembench.training.trackers.wandb:Wandb",
        "mlflow": "cembench.training.trackers.mlflow:MLflow",
    },
)

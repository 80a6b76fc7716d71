"""Where the experiments of a suite run: here, on a Ray cluster, on SLURM. No torch up here."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from cembench.util.layout import RunLayout

LAUNCHERS = {
    "local": "cembench.suites.launchers.local:Local",
    "ray": "cembench.suites.launchers.ray:Ray",
    "submitit": "cembench.suites.launchers.submitit:Submitit",
}


@dataclass(frozen=True)
class Job:
    """One experiment of a suite, in plain values that any process can read.

    Attributes:
        name: of the experiment and its run folder.
        experiment: its settings, its trackers among them.
        protocol: settings of the protocol.
        out: the folder of runs.
        device: `auto`, `cpu` or `cuda`.
        needs: names of the experiments that must be over before it begins.
        hopeless: what gave up, so that it need not begin.
        place: the folder that relative paths start from.
        plugins: modules that register something.
        environment: variables that are set before torch is imported.
    """

    name: str
    experiment: dict[str, Any]
    protocol: dict[str, Any]
    out: str
    device: str
    inception_weights: str | None = None
    needs: frozenset[str] = frozenset()
    hopeless: str | None = None
    place: str = "."
    plugins: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.out) / self.name

    @property
    def log(self) -> Path:
        """Where a process of its own writes what it says."""
        return RunLayout(self.folder).log


class Outcome(NamedTuple):
    """What became of an experiment: why it failed, if it did, and whether it gave up for good."""

    failure: str | None = None
    gave_up: bool = False


DIED = "run the same command again to go on"


class Launcher(ABC):
    """Starts experiments somewhere, and says which are over.

    Attributes:
        jobs: how many may be begun at once; None for no limit.
    """

    jobs: int | None = None

    @abstractmethod
    def start(self, job: Job) -> None:
        """Begin an experiment."""

    @abstractmethod
    def wait(self, seconds: float) -> list[tuple[str, Outcome]]:
        """Return those that are over, by name, after this long at most."""

    @abstractmethod
    def stop(self) -> None:
        """End what still runs; it can be resumed."""


def find_launcher(
    name: str, out: Path, jobs: int | None, device: str, settings: dict[str, Any]
) -> Launcher:
    """Return the launcher of that name.

    Raises:
        CembenchError: for a package that is not installed, or settings that it does not take.
    """
    module, _, attribute = LAUNCHERS[name].partition(":")
    cls = getattr(importlib.import_module(module), attribute)
    launcher: Launcher = cls(out, jobs, device, settings)
    return launcher

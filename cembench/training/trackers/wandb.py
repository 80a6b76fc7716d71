"""Weights & Biases tracker; `WANDB_MODE=offline` keeps everything in `RUN/wandb`, to sync later."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, ClassVar

from cembench.training.trackers import RunInfo, Tracker, TrackerRun


class Wandb(Tracker):
    """Weights & Biases: one run of a project.

    Attributes:
        project: project that lists the run.
        entity: user or team; the default of the account unless given.
    """

    name: ClassVar[str] = "wandb"
    package: ClassVar[str | None] = "wandb"
    project: str = "cembench"
    entity: str | None = None

    def open(self, run: RunInfo) -> TrackerRun:
        """Begin a run, or resume the one that `RUN/wandb.id` names."""
        import wandb

        return Remote(
            wandb.init(
                project=self.project,
                entity=self.entity,
                id=run.id_of(self.name, lambda: secrets.token_hex(4)),
                name=run.name,
                dir=run.folder,
                config=run.config,
                resume="allow",
                reinit="create_new",
                settings=wandb.Settings(console="off", silent=True),
            )
        )


class Remote(TrackerRun):
    """Run of the service; epochs are its steps.

    Offline it is unknown which epochs a killed process had stored, so each folder holds the whole
    history.
    """

    def __init__(self, service: Any) -> None:
        self.service = service
        self.known = max(0, service.step - 1)

    def write(self, epoch: int, values: Mapping[str, float]) -> None:
        """Send an epoch."""
        self.service.log(dict(values), step=epoch)

    def close(self, failed: bool) -> None:
        """Send what is left."""
        self.service.finish(exit_code=int(failed))

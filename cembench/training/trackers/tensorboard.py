"""TensorBoard: event files in `RUN/tensorboard`, for `tensorboard --logdir runs`."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, ClassVar

from cembench.training.trackers import RunInfo, Tracker, TrackerRun
from cembench.util.yaml import to_yaml

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoard(Tracker):
    """One event file each time that training begins or goes on."""

    name: ClassVar[str] = "tensorboard"
    package: ClassVar[str | None] = "tensorboard"

    def open(self, run: RunInfo) -> TrackerRun:
        """Begin a file with the whole history; it purges what files before it said."""
        from torch.utils.tensorboard import SummaryWriter

        _quieten()
        writer = SummaryWriter(run.folder / "tensorboard", purge_step=0)
        writer.add_text("run", f"{run.name}\n\n```yaml\n{to_yaml(run.config)}```", 0)
        return Events(writer)


class Events(TrackerRun):
    """An event file; none of those before it counts."""

    def __init__(self, writer: SummaryWriter) -> None:
        self.writer = writer

    def write(self, epoch: int, values: Mapping[str, float]) -> None:
        """Write an epoch to the disk: a killed process takes none with it."""
        for tag, value in values.items():
            self.writer.add_scalar(tag, value, epoch)
        self.writer.flush()

    def close(self, failed: bool) -> None:
        """Close the file."""
        self.writer.close()


@cache
def _quieten() -> None:
    """Keep the thread that writes from printing a traceback of what it also raises here."""
    before = threading.excepthook

    def hook(failure: threading.ExceptHookArgs) -> None:
        if not type(failure.thread).__module__.startswith("tensorboard."):
            before(failure)

    threading.excepthook = hook

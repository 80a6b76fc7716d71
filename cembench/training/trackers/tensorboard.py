"""TensorBoard tracker: event files in `RUN/tensorboard`, for `tensorboard --logdir runs`."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, ClassVar

from cembench.training.trackers import RunInfo, Tracker, TrackerRun
from cembench.util.files.yaml import to_yaml

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoard(Tracker):
    """TensorBoard: one event file each time that training begins or resumes."""

    name: ClassVar[str] = "tensorboard"
    package: ClassVar[str | None] = "tensorboard"

    def open(self, run: RunInfo) -> TrackerRun:
        """Begin a file with the whole history, which purges that of earlier files."""
        from torch.utils.tensorboard import SummaryWriter

        _quieten()
        writer = SummaryWriter(run.folder / "tensorboard", purge_step=0)
        writer.add_text("run", f"{run.name}\n\n```yaml\n{to_yaml(run.config)}```", 0)
        return Events(writer)


class Events(TrackerRun):
    """Event file; earlier files of the run are purged."""

    def __init__(self, writer: SummaryWriter) -> None:
        self.writer = writer

    def write(self, epoch: int, values: Mapping[str, float]) -> None:
        """Write an epoch and flush it, so that a killed process loses none."""
        for tag, value in values.items():
            self.writer.add_scalar(tag, value, epoch)
        self.writer.flush()

    def close(self, failed: bool) -> None:
        """Close the file."""
        self.writer.close()


@cache
def _quieten() -> None:
    """Silence tracebacks of the writer thread, whose errors are also raised here."""
    before = threading.excepthook

    def hook(failure: threading.ExceptHookArgs) -> None:
        if not type(failure.thread).__module__.startswith("tensorboard."):
            before(failure)

    threading.excepthook = hook

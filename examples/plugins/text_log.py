"""A tracker: the history as lines of JSON in `RUN/log.jsonl`, for `tail -f`.

cembench train CONFIG --set tracker=text-log --plugin text_log
"""

import json
from typing import ClassVar

from cembench.training.trackers import Tracker, TrackerRun, trackers


@trackers.register
class TextLog(Tracker):
    """Writes a file anew each time that training begins or goes on."""

    name: ClassVar[str] = "text-log"

    def open(self, run):
        """Begin with the settings; epochs that are done already are written next."""
        return Lines((run.folder / "log.jsonl").open("w"), {"run": run.name, **run.config})


class Lines(TrackerRun):
    """The open file."""

    def __init__(self, file, settings):
        self.file = file
        print(json.dumps(settings), file=file, flush=True)

    def write(self, epoch, values):
        """Write a line that a killed process leaves behind."""
        print(json.dumps({"epoch": epoch, **values}), file=self.file, flush=True)

    def close(self, failed):
        """Close the file."""
        self.file.close()

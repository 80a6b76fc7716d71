"""Jobs: the command line of one experiment, its process and its outcome."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

from cembench.suites.launchers.processes import end_group

FAILED, DIVERGED = 2, 3  # exit codes of a job whose last line says why
TAIL = 1 << 16  # bytes of a log that its last line is sought in
RESUME_HINT = "run the same command again to go on"


class Outcome(NamedTuple):
    """How an experiment ended: why it failed, if it did, and whether its training diverged."""

    failure: str | None = None
    diverged: bool = False


Started = Outcome | Callable[[], Outcome | None]  # over at once, or what to ask until it is


class Job(NamedTuple):
    """The command line of one experiment.

    Attributes:
        arguments: what follows `cembench`.
        log: the file that its output is appended to.
        place: the working folder, which relative paths start from.
        owner: process id of what it ends with, besides the process that starts it. Both are on one
            machine.
    """

    arguments: tuple[str, ...]
    log: Path
    place: Path
    owner: int | None = None

    def start(self) -> subprocess.Popen[bytes]:
        """Start its process, which imports what this one can, and ends when this one does.

        It leads a process group, so Ctrl-C reaches it through this process alone.
        """
        path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
        command = [sys.executable, "-P", "-m", "cembench", *self.arguments]
        command += ["--parent", str(os.getpid())]
        command += [] if self.owner is None else ["--owner", str(self.owner)]
        log = self.place / self.log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            return subprocess.Popen(
                command,
                cwd=self.place,
                env={**os.environ, "PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                process_group=0,
            )

    def run(
        self,
        blocked: Collection[signal.Signals] = (),
        begun: Callable[[subprocess.Popen[bytes]], None] = lambda process: None,
    ) -> int:
        """Start its process and return its exit code.

        Args:
            blocked: signals that the process does not see.
            begun: called with the process.
        """
        before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
        process = self.start()
        begun(process)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        try:
            return process.wait()
        finally:
            end_group(process.pid)
            process.kill()  # where something interrupts the wait

    def outcome(self, code: int | None) -> Outcome | None:
        """Return its outcome by an exit code: None while it runs, negative for a signal."""
        if code is None:
            return None
        if code == 0:
            return Outcome()
        if code not in (FAILED, DIVERGED):
            return ended(code, self.log)
        why = self.last_line().removeprefix("cembench: error: ")
        return Outcome(why.replace("--debug shows", f"{self.log} shows"), code == DIVERGED)

    def last_line(self) -> str:
        """Return the last line of its log."""
        return last_line(self.place / self.log)


StartJob = Callable[[Job], Started]


def ended(code: int, log: Path) -> Outcome:
    """Return the outcome of a process that ended by itself: its code, negative for a signal."""
    if code < 0:
        return Outcome(f"its process was killed by {signal.Signals(-code).name}; {RESUME_HINT}")
    return Outcome(f"its process ended with code {code}, see {log}; {RESUME_HINT}")


def last_line(log: Path) -> str:
    """Return the last line of a log, an empty one while there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            return (file.read().decode(errors="replace").splitlines() or [""])[-1]
    except OSError:
        return ""

"""Jobs: the command line of a worker, its process, and how that ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from cembench.suites.launchers.processes import end_group
from cembench.suites.outcomes import RESUME_HINT, last_line
from cembench.util.errors import CembenchError

REFUSED = 2  # exit code of a command that cannot work; its last line says why


def python(arguments: Sequence[str]) -> list[str]:
    """Return a command line of the Python that runs this; `Job.path` is what it imports from."""
    return [sys.executable, "-P", *arguments]


class Job(NamedTuple):
    """The command line of a worker.

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

    @staticmethod
    def path() -> str:
        """Return the places that this process imports from, as PYTHONPATH."""
        return os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)

    def start(self) -> subprocess.Popen[bytes]:
        """Start its process, which imports what this one can, and ends when this one does.

        It leads a process group, so Ctrl-C reaches it through this process alone.
        """
        command = python(["-m", "cembench", *self.arguments, "--parent", str(os.getpid())])
        command += [] if self.owner is None else ["--owner", str(self.owner)]
        log = self.place / self.log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            return subprocess.Popen(
                command,
                cwd=self.place,
                env={**os.environ, "PYTHONPATH": self.path()},
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

    def ending(self, code: int) -> str:
        """Return why its process ended too early; nothing where there was no more to do.

        Raises:
            CembenchError: when it cannot work, so that another one could not either.
        """
        if code == REFUSED:
            raise CembenchError(last_line(self.place / self.log).removeprefix("cembench: error: "))
        return ending(code, str(self.log))


Poll = Callable[[], str | None]  # why a worker ended: None while it runs, "" with nothing to do


def ending(code: int | None, log: str = "") -> str:
    """Return why a process ended too early by its exit code, negative for a signal."""
    if code == 0:
        return ""
    if code is not None and code < 0:
        return f"a worker was killed by {signal.Signals(-code).name}; {RESUME_HINT}"
    return f"a worker ended with code {code}{f', see {log}' * bool(log)}; {RESUME_HINT}"

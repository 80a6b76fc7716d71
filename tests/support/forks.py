"""Commands in processes of their own that start at once, and can be struck at any moment."""

from __future__ import annotations

import itertools
import os
import resource
import signal
import sys
from pathlib import Path
from typing import NamedTuple

from click.testing import CliRunner

from cembench.cli import main

TOUCHES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "shutil.rmtree"}


class Blow(NamedTuple):
    """A signal that a process gets just before it touches the files below a folder, `at` times."""

    folder: Path
    at: int
    signal: signal.Signals = signal.SIGKILL

    def prepare(self) -> None:
        """Lie in wait in this process."""
        count = itertools.count(1)

        def hook(event: str, args: tuple[object, ...]) -> None:
            touched = event in TOUCHES and any(str(self.folder) in str(a) for a in args[:2])
            if touched and next(count) == self.at:
                os.kill(os.getpid(), self.signal)

        sys.addaudithook(hook)


class Process:
    """A `cembench` command in a fork of this process, which has torch imported already."""

    def __init__(
        self, *args: object, errors: Path, blow: Blow | None = None, memory: int | None = None
    ) -> None:
        self.pid = os.fork()
        if self.pid == 0:
            code = 99
            try:
                signal.alarm(120)  # what hangs dies, and its test fails
                if memory is not None:
                    used = int(Path("/proc/self/statm").read_text().split()[0]) * 4096
                    resource.setrlimit(resource.RLIMIT_AS, (used + memory, used + memory))
                if blow is not None:
                    blow.prepare()
                result = CliRunner().invoke(main, [str(arg) for arg in args])
                errors.write_text(result.stderr)
                code = result.exit_code
            finally:
                os._exit(code)

    def wait(self) -> int:
        """Return the exit code, or minus the signal that ended or stopped the process."""
        _, status = os.waitpid(self.pid, os.WUNTRACED)
        return -os.WSTOPSIG(status) if os.WIFSTOPPED(status) else os.waitstatus_to_exitcode(status)

    def go_on(self) -> None:
        """Let a stopped process continue."""
        os.kill(self.pid, signal.SIGCONT)

"""Processes that start at once, since they are forks of this one, and can be struck at any moment.

A fork has torch and cembench imported already, but variables, a folder and plugins of its own.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, NamedTuple

import torch
import torch_fidelity  # noqa: F401  (forks have it imported already)
from click.testing import CliRunner

import cembench.api  # noqa: F401  (forks have it imported already)
from cembench.cli import main
from tests.conftest import Result

LIMIT = 120  # seconds after which what hangs is killed, and its test fails
ROOT = Path(__file__).parents[2]
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


class Fork:
    """A function in a fork of this process, with some variables; what it returns goes to a file."""

    def __init__(self, work: Callable[[], Any], file: Path, **variables: str) -> None:
        self.file = file
        file.unlink(missing_ok=True)
        self.pid = os.fork()
        if self.pid == 0:
            code = 99
            try:
                signal.alarm(LIMIT)
                os.environ.update(variables)
                torch.save(work(), file)
                code = 0
            finally:
                os._exit(code)

    def result(self) -> Any:
        """Return what the function returned."""
        code = self.wait()
        assert code == 0, f"process {self.file.name} ended with {code}"
        return torch.load(self.file, weights_only=False)

    def wait(self) -> int:
        """Return the exit code, or minus the signal that ended or stopped the process."""
        _, status = os.waitpid(self.pid, os.WUNTRACED)
        return -os.WSTOPSIG(status) if os.WIFSTOPPED(status) else os.waitstatus_to_exitcode(status)

    @property
    def ended(self) -> bool:
        """Whether the process has ended."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        os.kill(self.pid, number)


class Process(Fork):
    """A `cembench` command in a fork, whose exit code is that of the command.

    Args:
        errors: the file that its standard error goes to.
        memory: bytes that it may take besides those of this process.
    """

    def __init__(
        self, *args: object, errors: Path, blow: Blow | None = None, memory: int | None = None
    ) -> None:
        def work() -> None:
            if memory is not None:
                used = int(Path("/proc/self/statm").read_text().split()[0]) * 4096
                resource.setrlimit(resource.RLIMIT_AS, (used + memory, used + memory))
            if blow is not None:
                blow.prepare()
            result = called(args)
            errors.write_text(result.err)
            os._exit(result.code)

        super().__init__(work, errors)


def called(command: Sequence[object]) -> Result:
    """Call the command line in this process."""
    result = CliRunner().invoke(main, [str(arg) for arg in command])
    return Result(result.exit_code, result.stdout, result.stderr)


def call_apart(
    folder: Path, *args: object, path: Path = ROOT, **variables: str
) -> CompletedProcess[str]:
    """Run `cembench` as `subprocess.run` would: in a folder, with variables and a module path.

    Variables of this process that are about cembench are not passed on.
    """
    paths = [str(path), str(ROOT)]

    def work() -> Result:
        for name in [name for name in os.environ if name.startswith("CEMBENCH")]:
            del os.environ[name]
        os.environ.update(variables)
        os.chdir(folder)
        sys.path[:0] = paths
        return called(args)

    with tempfile.TemporaryDirectory() as place:
        fork = Fork(work, Path(place) / "result.pt", PYTHONPATH=os.pathsep.join(paths))
        return CompletedProcess(args, *fork.result())


@contextmanager
def fresh_python(path: Path) -> Iterator[Callable[..., CompletedProcess[str]]]:
    """Yield `call_apart` in a Python that was started with a folder of installed packages."""
    paths = os.pathsep.join([str(path), str(ROOT)])
    command = [sys.executable, "-c", "from tests.support.forks import serve; serve()"]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": paths},
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None

    def call(folder: Path, *args: object) -> CompletedProcess[str]:
        print(json.dumps([str(folder), *map(str, args)]), file=process.stdin, flush=True)
        return CompletedProcess(args, *json.loads(process.stdout.readline()))

    with process:
        yield call
        process.stdin.close()


def serve() -> None:
    """Run the commands that are asked for, one a line, and print what came of each."""
    for line in sys.stdin:
        folder, *args = json.loads(line)
        done = call_apart(Path(folder), *args)
        print(json.dumps([done.returncode, done.stdout, done.stderr]), flush=True)

"""What strikes a command of a chaos run: signals and a full disk while it runs, damage before."""

from __future__ import annotations

import itertools
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from cembench.__main__ import main
from tests.support.forks import LIMIT, TOUCHES

PATIENCE = 10  # seconds in which the processes that a command started must end after it


class Ended(NamedTuple):
    """How a command ended: its exit code, negative for a signal, and what it printed."""

    code: int
    out: str
    err: str


def at_touch(number: int, act: Callable[[], object], *, workers: bool = True) -> Callable[[], None]:
    """Return what makes this process act when it touches files for the given time.

    Args:
        number: of the touch.
        act: called then.
        workers: whether the processes that it starts act too, each at its own touch of that number.
    """

    def prepare() -> None:
        count, place, own = itertools.count(1), str(Path.cwd()), os.getpid()

        def hook(event: str, args: tuple[object, ...]) -> None:
            paths = args[:1] if event == "open" else args[:2]
            touched = event in TOUCHES and any(_below(place, path) for path in paths)
            if touched and next(count) == number and (workers or os.getpid() == own):
                act()

        sys.addaudithook(hook)

    return prepare


def _below(place: str, argument: object) -> bool:
    if not isinstance(argument, str | os.PathLike):
        return False
    path = Path(argument)
    return not path.is_absolute() or path.is_relative_to(place)


def after_seconds(seconds: float, number: signal.Signals) -> Callable[[], None]:
    """Return what sends this process a signal after some time, wherever it is then."""

    def prepare() -> None:
        struck = os.getpid()
        if os.fork() == 0:
            end = time.monotonic() + seconds
            while os.getppid() == struck and time.monotonic() < end:
                time.sleep(0.01)
            if os.getppid() == struck:
                os.kill(struck, number)
            os._exit(0)

    return prepare


class Running:
    """A command in a fork in a folder, in a process group of its own, which must end with it.

    Args:
        place: the folder of the files that its output goes to.
        folder: its working folder.
        command: its arguments; patterns are expanded.
        prepare: called in the fork first.
    """

    def __init__(
        self, place: Path, folder: Path, command: str, *prepare: Callable[[], None]
    ) -> None:
        parts = (_glob(folder, word) if "*" in word else [word] for word in command.split())
        words = [word for part in parts for word in part]
        self.command, self.out, self.err = command, place / "out.txt", place / "err.txt"
        self.pid = os.fork()
        if self.pid == 0:
            _run(folder, words, self.out, self.err, prepare)

    def stopped(self) -> bool:
        """Wait until it stops or ends; return whether it stopped."""
        found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WSTOPPED | os.WNOWAIT)
        assert found is not None
        return found.si_code == os.CLD_STOPPED

    def end(self) -> Ended:
        """Let it go on if it stopped, and wait until it and all that it started have ended."""
        os.kill(self.pid, signal.SIGCONT)
        _, status = os.waitpid(self.pid, 0)
        _require_no_orphans(self.pid, self.command)
        code = os.waitstatus_to_exitcode(status)
        return Ended(code, self.out.read_text(), self.err.read_text())


def _glob(folder: Path, pattern: str) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.glob(pattern))


def _run(
    folder: Path, words: list[str], out: Path, err: Path, prepare: tuple[Callable[[], None], ...]
) -> None:
    code = 99
    try:
        os.setpgid(0, 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.alarm(LIMIT)
        os.chdir(folder)
        for descriptor, path in ((1, out), (2, err)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
        sys.stdout, sys.stderr = (os.fdopen(d, "w", buffering=1, closefd=False) for d in (1, 2))
        for step in prepare:
            step()
        sys.argv = ["cembench", *words]
        main()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _require_no_orphans(group: int, command: str) -> None:
    end = time.monotonic() + PATIENCE
    while left := _alive(group):
        if time.monotonic() > end:
            os.killpg(group, signal.SIGKILL)
            raise AssertionError(f"{command}: processes {left} outlived it")
        time.sleep(0.05)


def _alive(group: int) -> list[int]:
    """Return the processes of a group that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, own_group = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:  # it has ended meanwhile
            continue
        if int(own_group) == group and state not in "ZX":
            found.append(int(path.parent.name))
    return found


def cut(path: Path, draw: random.Random, files: list[Path]) -> str:
    """Cut a file short."""
    content = path.read_bytes()
    path.write_bytes(content[: draw.randrange(len(content)) if content else 0])
    return ""


def flip(path: Path, draw: random.Random, files: list[Path]) -> str:
    """Turn one bit over."""
    content = bytearray(path.read_bytes())
    if content:
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)
    return ""


def swap(path: Path, draw: random.Random, files: list[Path]) -> str:
    """Put another file of the same kind in its place."""
    alike = [f for f in files if f.suffix == path.suffix and f.read_bytes() != path.read_bytes()]
    if not alike:
        return flip(path, draw, files)
    other = draw.choice(alike)
    path.write_bytes(other.read_bytes())
    return f" by {other.name} of {other.parent.name}"


def remove(path: Path, draw: random.Random, files: list[Path]) -> str:
    """Delete a file."""
    path.unlink()
    return ""


DAMAGE = {"cut": cut, "flip": flip, "swap": swap, "remove": remove}

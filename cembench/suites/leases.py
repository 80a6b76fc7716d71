"""Leases: files that say which process has an experiment, and show that it still lives.

The lease of an experiment is `NAME.1`. Whoever takes it over makes `NAME.2`, and so on; the file
with the highest number counts. A file is only ever created (`O_EXCL`), so of several processes
that find a holder dead exactly one takes over, and a holder that was only asleep finds out.

A holder touches its file every few seconds. Clocks of hosts differ, so a watcher compares the time
of the file only with what it was before, and waits by its own clock.
"""

from __future__ import annotations

import _thread
import json
import os
import platform
import secrets
import signal
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from pathlib import Path

BEAT = 5.0  # seconds from one sign of life to the next
PATIENCE = 60.0  # seconds without one after which a holder counts as dead
LOST = getattr(signal, "SIGUSR1", signal.SIGINT)  # sent to itself by a holder that lost a lease


@cache
def host() -> str:
    """Identify where process ids mean the same: a machine since it started, or a container."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    return f"{platform.node()} {uuid.getnode():x}"


@dataclass(frozen=True)
class Terms:
    """Content of a lease file.

    Attributes:
        session: of the queue, within which deaths are counted.
        deaths: holders that died before this one.
        released: whether the holder gave it back.
        node: the name of its machine, for people.
        pid: its process id.
        host: what the process id belongs to.
        token: what tells it from other holders.
    """

    session: str = ""
    deaths: int = 0
    released: bool = False
    node: str = field(default_factory=platform.node)
    pid: int = field(default_factory=os.getpid)
    host: str = field(default_factory=host)
    token: str = field(default_factory=lambda: secrets.token_hex(8))

    def __post_init__(self) -> None:
        """Refuse values of other types, which a file may hold."""
        for one in fields(self):
            if type(getattr(self, one.name)).__name__ != one.type:
                raise TypeError(one.name)

    @property
    def died(self) -> bool:
        """Whether the holder is a process of this machine that has ended."""
        return self.host == host() and sys.platform != "win32" and not _lives(self.pid)


UNKNOWN = Terms(node="", pid=0, host="", token="")  # of a file that is not written yet


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):  # of no process; too large for one
        return False
    except PermissionError:  # of another user
        return True
    with suppress(OSError, IndexError):  # a zombie only waits for its parent
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True


def read(path: Path) -> tuple[Terms, int]:
    """Return what a lease says and when it was touched, as the file system tells.

    It is opened, since file systems of several machines then ask the server.

    Raises:
        OSError: when it cannot be read.
    """
    with path.open() as file:
        touched = os.fstat(file.fileno()).st_mtime_ns
        try:
            return Terms(**json.load(file)), touched
        except (
            ValueError,
            TypeError,
            RecursionError,
        ):  # not all is written, or ever will be
            return UNKNOWN, touched


class Lease:
    """Lease that this process holds.

    Attributes:
        path: its file.
        terms: what the file says.
        lost: whether another process has taken over.
    """

    def __init__(self, folder: Path, name: str, number: int, terms: Terms, patience: float) -> None:
        self.path, self.next = folder / f"{name}.{number}", folder / f"{name}.{number + 1}"
        self.terms, self.patience, self.lost = terms, patience, False

    def take(self) -> bool:
        """Create the file, and return whether nobody else has.

        Raises:
            OSError: when it cannot be written.
        """
        try:
            descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        try:
            self._write(descriptor)
        except OSError:
            with suppress(OSError):
                self.path.unlink()
            raise
        return True

    def release(self) -> None:
        """Let the next one have it at once; a lease that cannot be written runs out by itself."""
        self.terms = replace(self.terms, released=True)
        if not self.lost:
            with suppress(OSError):
                self._write(os.open(self.path, os.O_WRONLY | os.O_TRUNC))

    def _write(self, descriptor: int) -> None:
        with os.fdopen(descriptor, "w") as file:
            json.dump(asdict(self.terms), file)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Show signs of life until this ends.

        When another process has taken over, `lost` is set, and this process gets the signal that
        asks it to save its work, if it handles signals.
        """
        over = threading.Event()
        thread = threading.Thread(target=self._keep, args=(over,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _keep(self, over: threading.Event) -> None:
        seen = time.monotonic()
        while not over.wait(min(BEAT, self.patience / 4)):
            try:
                mine = not self.next.exists() and read(self.path)[0].token == self.terms.token
                if mine:
                    os.utime(self.path)
                seen = time.monotonic()
            except OSError:  # the store is away, and comes back, or the others have given up by now
                mine = time.monotonic() - seen < self.patience
            if not mine and not over.is_set():
                self.lost = True
                _thread.interrupt_main(LOST)
                return


class Watch:
    """Watch of a lease that another process holds.

    Attributes:
        number: of the file.
        terms: what it said.
    """

    def __init__(self, folder: Path, name: str, number: int = 1) -> None:
        self.folder, self.name, self.number = folder, name, number
        self.terms, self.touched = UNKNOWN, -1
        self.since = time.monotonic()

    def is_free(self, patience: float) -> bool:
        """Return whether the holder has given the lease back, has ended, or shows no sign of life.

        Raises:
            OSError: when the lease cannot be read.
        """
        while (self.folder / f"{self.name}.{self.number + 1}").exists():
            self.number, self.touched = self.number + 1, -1
        self.terms, touched = read(self.folder / f"{self.name}.{self.number}")
        if touched != self.touched:
            self.touched, self.since = touched, time.monotonic()
        silent = time.monotonic() - self.since > patience
        return self.terms.released or self.terms.died or silent

"""Locks that let one process at a time write to a place."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from cembench.util.errors import CembenchError

PATIENCE = 5.0  # seconds in which a process that was killed may end, and drop what it holds


class Busy(CembenchError):
    """Another process holds a lock."""


@contextmanager
def locked(path: Path, what: str, patience: float | None = None) -> Iterator[None]:
    """Hold the lock file `path`, which belongs to `what`, for a while.

    The kernel drops the lock when its process ends in any way, so there are no stale locks. A file
    system without such locks is refused, since marker files would outlive a killed process. The
    file is removed by its holder; whoever waited for it finds it without a name and makes another.

    Args:
        path: the lock file.
        what: what errors name.
        patience: seconds to wait for another holder.

    Raises:
        Busy: when another process holds it.
        CembenchError: when it cannot be written.
    """
    found = path.parent.exists()
    try:
        lock = _acquired(path, PATIENCE if patience is None else patience)
    except Timeout as error:
        raise Busy(f"{what}: another process is at it; wait for it or stop it") from error
    except OSError as error:
        raise CembenchError(f"cannot write {path}: {error.strerror}") from error
    try:
        yield
    finally:
        with suppress(OSError):  # on Windows an open file stays, and `release` removes it
            path.unlink()
        lock.release()
        if not found:
            with suppress(OSError):  # what was written meanwhile keeps it
                path.parent.rmdir()


def _acquired(path: Path, patience: float) -> FileLock:
    """Return the lock, once it is free."""
    lock = FileLock(path, timeout=patience, fallback_to_soft=False)
    end = time.monotonic() + patience
    while True:
        try:
            lock.acquire()  # which makes the folder too
            return lock
        except (FileNotFoundError, FileExistsError):
            # its holder has just removed the folder, which was empty; what is no folder stays
            parent = path.parent
            if time.monotonic() > end or parent.is_file() or parent.is_symlink():
                raise

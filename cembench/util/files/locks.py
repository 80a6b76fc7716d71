"""Locks that let one process at a time write to a place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from cembench.util.errors import CembenchError

PATIENCE = 0.2  # seconds in which a process that ends may remove its lock file


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file `path`, which belongs to `what`, for a while.

    The kernel drops the lock when its process ends in any way, so there are no stale locks. A file
    system without such locks is refused, since marker files would outlive a killed process.

    Raises:
        CembenchError: when another process holds it, or it cannot be written.
    """
    found = path.parent.exists()
    lock = FileLock(path, timeout=PATIENCE, fallback_to_soft=False)
    try:
        lock.acquire()  # which makes the folder too
    except Timeout as error:
        raise CembenchError(f"{what}: another process is at it; wait for it or stop it") from error
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

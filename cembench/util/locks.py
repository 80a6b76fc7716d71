"""One writer a place: a lock that a killed process cannot leave behind."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cembench.util.errors import CembenchError


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file `path`, which belongs to `what`, for a while.

    The kernel drops the lock when its process ends in any way, so there are no stale locks.

    Raises:
        CembenchError: when another process holds it, or it cannot be written.
    """
    found = path.parent.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _acquire(path)
    except BlockingIOError as error:
        raise CembenchError(f"{what}: another process is at it; wait for it or stop it") from error
    except OSError as error:
        raise CembenchError(f"cannot write {path}: {error.strerror}") from error
    try:
        yield
    finally:
        with suppress(OSError):  # the file alone locks nobody out
            path.unlink()
        os.close(descriptor)
        if not found:
            with suppress(OSError):  # what was written meanwhile keeps it
                path.parent.rmdir()


def _acquire(path: Path) -> int:
    """Lock the file that the path names now; one that was removed meanwhile does not count."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)

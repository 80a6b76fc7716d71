"""Temporary files beside those that they will replace, and removal of what killed processes left.

A temporary file is locked as long as its process lives; the kernel drops the lock when that ends.
So anybody may remove what is not locked, without knowing who else writes to a folder.
"""

from __future__ import annotations

import glob
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

if sys.platform != "win32":  # where a file that is open can be neither removed nor renamed
    import fcntl


@contextmanager
def temporary_beside(path: Path) -> Iterator[tuple[int, Path]]:
    """Yield the descriptor and the path of a new file in the folder of another one.

    The caller closes it, and may rename it; what is left of it in the end is removed.

    Raises:
        OSError: when the folder is not writable.
    """
    clear_leftovers(path.parent, path.name)
    descriptor, keeper, temporary = _begin(path)
    try:
        yield descriptor, temporary
    finally:
        with suppress(OSError):  # renamed, or the file system is read-only by now
            temporary.unlink()
        if keeper is not None:
            os.close(keeper)


def clear_leftovers(folder: Path, name: str = "*") -> None:
    """Remove the temporary files that killed writes left in a folder.

    Args:
        folder: the folder.
        name: of the file that they would have become, as text; any file unless given.
    """
    pattern = name if name == "*" else glob.escape(name)
    for leftover in folder.glob(f".{pattern}.????????.tmp"):
        with suppress(OSError):  # a process is writing it, or has renamed it
            _remove(leftover)


def _begin(path: Path) -> tuple[int, int | None, Path]:
    """Return a new file, and a second descriptor that keeps it locked when the first is closed."""
    while True:
        descriptor, name = tempfile.mkstemp(".tmp", f".{path.name}.", path.parent)
        if sys.platform == "win32":
            return descriptor, None, Path(name)
        keeper = os.dup(descriptor)
        with suppress(OSError):  # a file system without locks, where leftovers stay
            fcntl.flock(keeper, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink > 0:
            return descriptor, keeper, Path(name)
        os.close(descriptor)  # somebody removed it before it was locked
        os.close(keeper)


def _remove(leftover: Path) -> None:
    """Remove a temporary file unless it is in use."""
    if sys.platform == "win32":
        leftover.unlink()
        return
    with leftover.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        leftover.unlink()

"""Patience with a store that is slow or away for a while: the same again, until it is back."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
NAMES = (
    *("EIO", "ESTALE", "ETIMEDOUT", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH"),
    *("ENOTCONN", "ECONNRESET", "ECONNABORTED", "EREMOTEIO", "ENOLINK"),
)
AWAY = frozenset(getattr(errno, name) for name in NAMES if hasattr(errno, name))
LONGEST = 600.0  # seconds that a store may be away


def is_away(error: BaseException, folder: Path) -> bool:
    """Return whether an error says that the store of a folder is away, not that it refuses."""
    cause = error if isinstance(error, OSError) else error.__cause__
    return isinstance(cause, OSError) and (cause.errno in AWAY or not is_there(folder))


def is_there(folder: Path) -> bool:
    """Return whether a folder exists, as far as its store can tell."""
    try:
        return folder.exists()
    except OSError:
        return False


def pauses(longest: float | None = None) -> Iterator[float]:
    """Wait a moment, then longer and longer, as often as this is asked; end after `longest`."""
    end = time.monotonic() + (LONGEST if longest is None else longest)
    pause = 0.5
    while time.monotonic() < end:
        time.sleep(pause)
        yield pause
        pause = min(10.0, 1.5 * pause)


def patiently(work: Callable[[], T], folder: Path) -> T:
    """Call a function, again and again while the store of a folder is away.

    Raises:
        Exception: what it raises at last, or for another reason.
    """
    waiting = pauses()
    while True:
        try:
            return work()
        except Exception as error:
            if not is_away(error, folder) or next(waiting, None) is None:
                raise

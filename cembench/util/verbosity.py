"""Verbosity: how much is said on stderr besides errors, and the log of what is done.

`quiet` silences bars and notes. `verbose` writes what is read, reused and measured, with the time,
through the logger `cembench`. Libraries and notebooks, which set neither, see what they always do.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger("cembench")
FORMAT = logging.Formatter("{relativeCreated:8.0f} ms  {message}", style="{")


class _Now:
    """What was asked of this process."""

    quiet: bool = False


def is_quiet() -> bool:
    """Return whether no notes and bars are wanted here; of several processes one has them."""
    return _Now.quiet or os.environ.get("RANK", "0") != "0"


@contextmanager
def speaking(quiet: bool = False, verbose: bool = False) -> Iterator[None]:
    """Say less, or more, until this ends."""
    handler = logging.StreamHandler()
    handler.setFormatter(FORMAT)
    handler.setLevel(logging.ERROR if quiet else logging.DEBUG)
    before = _Now.quiet, log.level
    _Now.quiet = quiet
    if verbose:
        log.setLevel(logging.INFO)
    if quiet or (verbose and not is_quiet()):
        log.addHandler(handler)
    try:
        yield
    finally:
        _Now.quiet = before[0]
        log.setLevel(before[1])
        log.removeHandler(handler)

"""Outcomes of experiments, and the end of the log that says why one failed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import NamedTuple

TAIL = 1 << 16  # bytes of a log that its last line is sought in
RESUME_HINT = "run the same command again to go on"


class Outcome(NamedTuple):
    """How an experiment ended: why it failed, if it did, and whether its training diverged."""

    failure: str | None = None
    diverged: bool = False


def last_line(log: Path) -> str:
    """Return the last line of a log, an empty one while there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            return (file.read().decode(errors="replace").splitlines() or [""])[-1]
    except OSError:
        return ""


@contextmanager
def written_to(log: Path) -> Iterator[None]:
    """Append all output of this process, and of those that it starts, to a file for a while.

    Raises:
        OSError: when the file cannot be written.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    before = [os.dup(descriptor) for descriptor in (1, 2)]
    try:
        with log.open("a", buffering=1, errors="replace") as file:
            for descriptor in (1, 2):
                os.dup2(file.fileno(), descriptor)
            with redirect_stdout(file), redirect_stderr(file):
                yield
    finally:
        for descriptor, kept in zip((1, 2), before, strict=True):
            with suppress(OSError):
                os.dup2(kept, descriptor)
            os.close(kept)

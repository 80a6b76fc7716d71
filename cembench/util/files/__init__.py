"""Files, written whole or not at all, and digests of them."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from cembench.util.errors import CembenchError
from cembench.util.files.temporary import temporary_beside
from cembench.util.stopping import postponed

log = logging.getLogger("cembench")
CHUNK = 1 << 20  # bytes that are read at once


def write_bytes(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write content whole or not at all, as `replacing` does; a signal to stop waits for it."""
    with postponed(), replacing(path, durable=durable) as file:
        file.write(content)


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Yield a temporary neighbour that takes the place of a file when all went well.

    So a reader never sees half a file. What killed writes of the same file left is removed.

    Args:
        path: the file.
        durable: wait until it is on the disk, so that it also outlasts a power cut.

    Raises:
        CembenchError: when the folder is not writable or the disk is full; the old file stays.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_beside(path) as (descriptor, temporary):
            with os.fdopen(descriptor, "w+b") as file:
                yield file
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error


def nearest(path: Path) -> Path:
    """Return a path, or the nearest folder above it that exists."""
    return next(place for place in (path, *path.absolute().parents) if place.exists())


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text as `write_bytes` does; bytes of file names that are not UTF-8 as escapes."""
    write_bytes(path, text.encode(errors="backslashreplace"))


def unwritable(path: object, error: OSError) -> CembenchError:
    """Return what to tell the user when a file cannot be written: why, and a remedy."""
    remedy = "free some space" if error.errno == errno.ENOSPC else "choose another folder"
    return CembenchError(f"cannot write {path}: {error.strerror}; {remedy}")


def read_bytes(path: Path, most: int = -1) -> bytes:
    """Read a file.

    Args:
        path: the file.
        most: how many bytes to read from its beginning; all unless given.

    Raises:
        CembenchError: when it is missing or unreadable.
    """
    try:
        with path.open("rb") as file:
            log.info("%s: read", path)
            return file.read(most)
    except OSError as error:
        raise CembenchError(f"cannot read {path}: {error.strerror}") from error


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal text."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CembenchError(f"cannot read {path}: {error.strerror}") from error


def digest(value: Any) -> str:
    """Return twelve hexadecimal digits that identify plain values, whatever their key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]

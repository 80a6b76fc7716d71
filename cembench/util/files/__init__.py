"""Files, written whole or not at all, and digests of them."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from cembench.util.errors import CembenchError

CHUNK = 1 << 20  # bytes that are read at once


def write_bytes(path: Path, content: bytes) -> None:
    """Write content whole or not at all, as `replacing` does."""
    with replacing(path) as file:
        file.write(content)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a temporary neighbour that takes the place of a file when all went well.

    So a reader never sees half a file.

    Raises:
        CembenchError: when the folder is not writable or the disk is full; the old file stays.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(".tmp", f".{path.name}.", path.parent)
        with os.fdopen(descriptor, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        if temporary is not None:
            with suppress(OSError):  # gone already, or the file system is read-only by now
                Path(temporary).unlink()


def clear_leftovers(path: Path) -> None:
    """Remove what killed writes of this file left; nobody else may be writing it."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.????????.tmp"):
        leftover.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text as `write_bytes` does; bytes of file names that are not UTF-8 as escapes."""
    write_bytes(path, text.encode(errors="backslashreplace"))


def unwritable(path: Path, error: OSError) -> CembenchError:
    """Return what to tell the user when a file cannot be written: why, and a remedy."""
    remedy = "free some space" if error.errno == errno.ENOSPC else "choose another folder"
    return CembenchError(f"cannot write {path}: {error.strerror}; {remedy}")


def read_bytes(path: Path) -> bytes:
    """Read a file.

    Raises:
        CembenchError: when it is missing or unreadable.
    """
    try:
        return path.read_bytes()
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

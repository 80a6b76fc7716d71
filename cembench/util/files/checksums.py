"""Checksums of files that were read before, kept in the user's cache.

A file is known by its path, size, times of change and inode, as Git knows those of a work tree. It
is read again when any of these differ. What is kept can be lost, damaged or unwritable at any
moment: then files are read.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from cembench.util.errors import CembenchError
from cembench.util.files import digest, sha256
from cembench.util.files.layout import user_cache

SETTLED = 2.0  # seconds; a file that was changed later may change again within the same time stamp
PATIENCE = 5.0  # seconds in which another process may finish its write
TABLE = """
    CREATE TABLE IF NOT EXISTS files (
        path BLOB PRIMARY KEY, state TEXT NOT NULL, sha256 TEXT NOT NULL, seal TEXT NOT NULL
    ) WITHOUT ROWID
"""
FIND = "SELECT sha256, seal FROM files WHERE path = ? AND state = ?"
KEEP = "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)"


class Checksums:
    """SHA-256 of files by their paths; a context that ends with the database closed.

    Args:
        verify: read every file once, whatever is known of it.
    """

    def __init__(self, *, verify: bool = False) -> None:
        self.verify = verify
        self._found: dict[tuple[bytes, str], str] = {}
        self._database: sqlite3.Connection | None = None
        self._opened = False
        self._read_only = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def of(self, path: Path) -> str:
        """Return the SHA-256 of a file as hexadecimal text.

        Raises:
            CembenchError: when it is missing or unreadable.
        """
        self._open()
        state, changed = _state(path)
        name = os.fsencode(path.absolute())
        known = self._found.get((name, state))
        if known is None and not self.verify:
            known = self._known(name, state)
        if known is None:
            known = sha256(path)
            if time.time() - changed >= SETTLED:
                self._keep(name, state, known)
        self._found[name, state] = known
        return known

    def _open(self) -> None:
        """Open the database when it is first needed."""
        if self._opened:
            return
        self._opened = True
        with suppress(OSError, sqlite3.Error):
            path = database_file()
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)
            self._run(TABLE)

    def _known(self, name: bytes, state: str) -> str | None:
        for checksum, seal in self._run(FIND, name, state):
            if seal == _seal(name, state, str(checksum)):
                return checksum
        return None

    def _keep(self, name: bytes, state: str, checksum: str) -> None:
        self._run(KEEP, name, state, checksum, _seal(name, state, checksum))

    def _run(self, statement: str, *values: bytes | str) -> list[tuple[str, str]]:
        """Return the rows of a statement; none where the database fails.

        One that is busy, full or read-only is not damaged: nothing more is written to it, or asked
        of it. A damaged one is removed.
        """
        if self._database is None or (self._read_only and statement != FIND):
            return []
        try:
            return self._database.execute(statement, values).fetchall()
        except sqlite3.OperationalError:
            self._read_only = True
            if statement == FIND:
                self._close()
        except sqlite3.DatabaseError:
            self._close()
            with suppress(OSError):
                database_file().unlink()
        return []

    def _close(self) -> None:
        if self._database is not None:
            with suppress(sqlite3.Error):
                self._database.close()
        self._database = None


def database_file() -> Path:
    """Return the database; its name has the version of its table."""
    return user_cache() / "checksums-1.sqlite"


def _state(path: Path) -> tuple[str, float]:
    """Return what tells whether a file is still the same, and the time of its last change."""
    try:
        found = path.stat()
    except OSError as error:
        raise CembenchError(f"cannot read {path}: {error.strerror}") from error
    state = (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
    return " ".join(map(str, state)), max(found.st_mtime, found.st_ctime)


def _seal(name: bytes, state: str, checksum: str) -> str:
    """Return the checksum of a row: SQLite does not notice a flipped bit of a text."""
    return digest([name.hex(), state, checksum])

"""Images in a column of parquet files, of which a few megabytes are in memory at a time.

Files are read without pyarrow's threads, see `util.files.parquet`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from cembench.data.files.source import Source
from cembench.util.errors import CembenchError, one_line
from cembench.util.files import digest

BUFFER = 1 << 20  # bytes that are read from a file at a time
BATCH_BYTES = 16 * 2**20  # of the images that are held; a row group may be larger


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Name a parquet file that turns out to be damaged.

    Raises:
        CembenchError: naming it.
    """
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise CembenchError(f"unreadable parquet {path.name}: {one_line(error)}") from error


def opened(path: Path) -> pq.ParquetFile:
    """Open a parquet file, inside `reading`."""
    return pq.ParquetFile(path, buffer_size=BUFFER, pre_buffer=False)


class _Group(NamedTuple):
    """A row group: its file, its number in it, and the first rows of both in the split."""

    file: str
    number: int
    first: int
    file_first: int


class _Batch(NamedTuple):
    """Images that are held, and their rows in the split."""

    rows: range
    images: Any


NONE = _Batch(range(0), None)


@dataclass(eq=False)
class ParquetSource(Source):
    """Images in a column of parquet files; reading them in order reads every byte once.

    Attributes:
        names: of the files.
        column: of the images, in all files.
    """

    names: tuple[str, ...]
    column: str

    def __post_init__(self) -> None:
        self._batch, self._group = NONE, -1
        self._rest: Iterator[_Batch] = iter(())
        self._file: tuple[str, Any] = "", None

    def __reduce__(self) -> Any:
        """Leave out open files."""
        return type(self), tuple(getattr(self, field.name) for field in fields(self))

    def name(self, row: int) -> str:
        """Return the file and the row in it."""
        group = self._groups[self._group_of(row)]
        return f"{group.file} row {row - group.file_first}"

    def read(self, row: int) -> bytes:
        """Return the content of the image; nothing where it has none."""
        group = self._group_of(row)
        if group != self._group or row < self._batch.rows.start:
            self._group, self._batch, self._rest = group, NONE, self._batches(group)
        while row not in self._batch.rows:
            self._batch = next(self._rest)
        content = self._batch.images[row - self._batch.rows.start].as_py()
        content = content.get("bytes") if isinstance(content, dict) else content
        return content if isinstance(content, bytes) else b""

    def files(self) -> Iterator[str]:
        """Return the names of the files."""
        return iter(self.names)

    def stamp(self) -> str:
        """Return a digest of the files, and of the column that is read."""
        return digest([super().stamp(), self.column])

    @cached_property
    def _groups(self) -> list[_Group]:
        groups, row = [], 0
        for name in self.names:
            start = row
            with reading(self.root / name), opened(self.root / name) as file:
                for number in range(file.num_row_groups):
                    groups.append(_Group(name, number, row, start))
                    row += file.metadata.row_group(number).num_rows
        return groups

    @cached_property
    def _starts(self) -> list[int]:
        return [group.first for group in self._groups]

    def _group_of(self, row: int) -> int:
        return bisect_right(self._starts, row) - 1

    def _batches(self, number: int) -> Iterator[_Batch]:
        """Return the images of a row group, batch by batch."""
        group = self._groups[number]
        with reading(self.root / group.file):
            if self._file[0] != group.file:  # opening one takes time for each of its row groups
                self._file = group.file, opened(self.root / group.file)
            file = self._file[1]
            found = file.metadata.row_group(group.number)
            size = max(1, found.num_rows * BATCH_BYTES // max(1, found.total_byte_size))
            row = group.first
            for part in file.iter_batches(size, [group.number], [self.column], use_threads=False):
                yield _Batch(range(row, row + len(part)), part.column(0))
                row += len(part)

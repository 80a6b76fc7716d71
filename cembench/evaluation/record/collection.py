"""Collections: records of many runs as one parquet table, one row each.

A row has the columns of the leaderboards, for DuckDB, pandas and the like; `record`, the content of
the record's file, is what is read back. So a collection stands for the files wherever records are
read: the path of a record in it is that of the collection, then its own.
"""

from __future__ import annotations

import io
from collections.abc import Container, Iterator
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING, Any

from cembench.evaluation.record.acceptance import OUTCOMES
from cembench.util.errors import CembenchError, said
from cembench.util.files import write_bytes

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 1024  # of a row group
MOST = 1_000_000  # records
LONGEST = 8 << 20  # bytes of a record
TOGETHER = 4 << 30  # bytes of all
NEEDED = ("path", "record")
TEXT = ("string", "large_string", "dictionary<values=string", "dictionary<values=large_string")
REPLACED, ACCEPTED = MARKS = ("checkpoint", "accepted")  # columns of what no record says of itself


@dataclass(frozen=True)
class Collected:
    """A record in a collection.

    Attributes:
        path: its path, which begins with that of the collection.
        content: what its file said.
        replaced: whether its checkpoint had been replaced when it was collected.
        accepted: what the keeper of a board had done with it.
    """

    path: Path
    content: bytes
    replaced: bool
    accepted: str


def write_collection(path: Path, table: pa.Table) -> None:
    """Write a collection whole or not at all.

    Args:
        path: the file.
        table: with the columns `path` and `record` and any others.

    Raises:
        CembenchError: when its name ends in anything but `.parquet`, or it cannot be written.
    """
    import pyarrow.parquet as pq

    if path.suffix != ".parquet":
        raise CembenchError(f"{path}: a collection is a file NAME.parquet; `--csv` prints CSV")
    stream = io.BytesIO()
    pq.write_table(table, stream, row_group_size=ROWS, compression="zstd", compression_level=9)
    write_bytes(path, stream.getvalue())


def read_collection(path: Path) -> Iterator[Collected]:
    """Yield the records of a collection in its order.

    It need not be written by `write_collection`: any parquet table with the two columns will do,
    such as a selection that DuckDB made. Each record has its own seal.

    Raises:
        CembenchError: when the file is damaged, another table, or larger than makes sense.
    """
    import pyarrow as pa

    try:
        yield from _rows(path)
    except (pa.ArrowException, OSError, ValueError, LookupError, MemoryError) as error:
        raise CembenchError(f"{path}: damaged, or not a parquet file: {said(error)}") from error


def _rows(path: Path) -> Iterator[Collected]:
    import pyarrow.parquet as pq

    # A dictionary keeps a text once that many rows share, however large it is.
    with pq.ParquetFile(path, pre_buffer=False, read_dictionary=["record"]) as file:
        texts = {one.name for one in file.schema_arrow if str(one.type).startswith(TEXT)}
        names = [name for name in (*NEEDED, *MARKS) if name in texts]  # empty ones may have no type
        _check(path, file, names)
        taken: set[str] = set()
        size = 0
        for batch in file.iter_batches(64, columns=names, use_threads=False):
            for number in range(batch.num_rows):
                row = {name: batch.column(name)[number].as_py() or "" for name in names}
                name = free_place(_place(path, row["path"]), taken)
                taken.add(name)
                text = _content(path, row["record"])
                if (size := size + len(text)) > TOGETHER:
                    raise CembenchError(f"{path}: too large: more than {TOGETHER >> 30} GiB")
                replaced = row.get(REPLACED) == "replaced"
                yield Collected(path / name, text, replaced, _accepted(row.get(ACCEPTED)))


def _check(path: Path, file: Any, names: list[str]) -> None:
    """Refuse another table, or one that holds more than anybody measures."""
    if not {*NEEDED} <= {*names}:
        raise CembenchError(
            f"{path}: not a collection of records, which `cembench records RUNS --to FILE` writes: "
            "it has no text columns path and record"
        )
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    columns = [one.column(number) for one in groups for number in range(one.num_columns)]
    sizes = [one.total_uncompressed_size for one in columns if one.path_in_schema in names]
    if file.metadata.num_rows > MOST or max(sizes, default=0) > TOGETHER:
        raise CembenchError(f"{path}: too large for a collection: {file.metadata.num_rows} rows")


def free_place(place: PurePath, taken: Container[str]) -> str:
    """Return the path of a record in a collection, in which a folder that is taken has a number."""
    first, *rest = place.parts
    names = (PurePath(f"{first}-{number}", *rest) for number in count(2))
    return next(name for one in chain([place], names) if (name := one.as_posix()) not in taken)


def _place(path: Path, place: Any) -> PurePath:
    """Return the path of a record, which never leaves the collection."""
    found = PurePosixPath(place)
    if not found.parts or any(part in ("..", "/") or "\0" in part for part in found.parts):
        raise CembenchError(f"{path}: damaged: {str(place)!r:.100} is no path of a record")
    return found


def _accepted(mark: Any) -> str:
    return mark if mark in OUTCOMES else ""


def _content(path: Path, content: Any) -> bytes:
    text = str(content).encode()
    if not 0 < len(text) <= LONGEST:
        raise CembenchError(f"{path}: damaged: a record of {len(text)} bytes")
    return text

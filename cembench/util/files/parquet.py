"""Tables in parquet files, read without pyarrow's threads.

They can outlive the work: with pyarrow 26 about one command in ten that had read a table aborted as
it ended, with its work done and exit code 134.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cembench.util.errors import CembenchError
from cembench.util.files import read_bytes, write_bytes
from cembench.util.files.seal import header_entries, header_metadata, is_sealed, seal

if TYPE_CHECKING:
    import pandas as pd

MOST_CELLS = 10**8
MOST_COLUMNS = 10**4
MOST_TEXT = 2**30


def write_table(
    path: Path, frame: pd.DataFrame, metadata: Mapping[str, Any] | None = None, name: str = ""
) -> None:
    """Write a data frame without its index, whole or not at all, with a seal.

    Args:
        path: the file.
        frame: what to write.
        metadata: plain values that describe it.
        name: what the file is, where another sealed file must not pass for it.

    Raises:
        CembenchError: when it cannot be written.
    """
    write_bytes(path, sealed_table(frame, metadata, name))


def sealed_table(
    frame: pd.DataFrame, metadata: Mapping[str, Any] | None = None, name: str = ""
) -> bytes:
    """Return the content of the file that `write_table` writes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(frame, preserve_index=False)
    entries = table.schema.metadata | header_entries(metadata)
    stream = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(entries), stream)
    return seal(stream.getvalue(), name)


def read_table(path: Path, name: str = "", *, legacy: bool = False) -> pd.DataFrame:
    """Read what `write_table` wrote under this name; `attrs` of the frame hold the metadata.

    Args:
        path: the file.
        name: as it was written.
        legacy: also take files without metadata as they are: earlier versions wrote them without a
            seal. Damage to such a file goes unnoticed.

    Raises:
        CembenchError: when it is missing, damaged, or another file.
    """
    import pyarrow as pa

    content = read_bytes(path)
    try:
        table = read_arrow(content)
        entries = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
        metadata = header_metadata(entries)
        if is_sealed(content, name) or (legacy and metadata is None):
            frame: pd.DataFrame = table.to_pandas(use_threads=False)
            frame.attrs.update(metadata or {})
            return frame
    except (pa.ArrowException, OSError, ValueError, TypeError, AttributeError, RecursionError):
        pass
    raise CembenchError(f"{path}: damaged, or changed since it was written")


def read_arrow(source: bytes | Path) -> Any:
    """Return the pyarrow table of a parquet file, or of its content.

    Raises:
        pyarrow.ArrowException, OSError: when it is none.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = pa.BufferReader(source) if isinstance(source, bytes) else source
    return pq.ParquetFile(file, pre_buffer=False).read(use_threads=False)


def require_small(content: bytes) -> None:
    """Refuse a table that takes far more memory than its file: a text is kept once, and repeated.

    Raises:
        ValueError: for more than `MOST_CELLS`, texts of more than `MOST_TEXT` bytes in all, and
            columns of anything but numbers, texts, and yes or no.
        pyarrow.ArrowException, OSError: when it is no parquet file.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    size = pq.read_metadata(pa.BufferReader(content))
    if size.num_rows * size.num_columns > MOST_CELLS or size.num_columns > MOST_COLUMNS:
        raise ValueError("more cells than any table")
    schema, texts = pq.read_schema(pa.BufferReader(content)), []
    for field in schema:
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            texts.append(field.name)
        elif not (pa.types.is_primitive(field.type) or pa.types.is_null(field.type)):
            raise ValueError(f"a column of {field.type}")
    file = pq.ParquetFile(
        pa.BufferReader(content), read_dictionary=texts, pre_buffer=False, memory_map=False
    )
    left = MOST_TEXT
    for batch in file.iter_batches(columns=texts, use_threads=False) if texts else ():
        for column in batch.columns:
            longest = pc.max(pc.binary_length(column.dictionary)).as_py() or 0
            left -= longest * len(column)
        if left < 0:
            raise ValueError(f"more than {MOST_TEXT:,} bytes of text")


def read_frame(source: bytes | Path) -> pd.DataFrame:
    """Return it as a data frame."""
    frame: pd.DataFrame = read_arrow(source).to_pandas(use_threads=False)
    return frame

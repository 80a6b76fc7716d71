"""Finished chunks of an evaluation, kept on disk until the record is written."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from cembench.errors import CembenchError
from cembench.files import write_bytes


class Parts:
    """A folder of chunks, named by the content of what they are a part of.

    Chunks are independent, so an evaluation that was killed takes these and computes the rest.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder / f".{key}.parts"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CembenchError(f"cannot write {folder}: {error.strerror}") from error

    def get(self, start: int) -> tuple[pd.DataFrame, dict[str, float]] | None:
        """Return the table and seconds of the chunk that begins at an image, if it is whole."""
        try:
            table = pq.read_table(self._path(start))
            return table.to_pandas(), json.loads(table.schema.metadata[b"seconds"])
        except (OSError, pa.ArrowException, KeyError, ValueError):
            return None

    def put(self, start: int, table: pd.DataFrame, seconds: dict[str, float]) -> None:
        """Keep the table and seconds of a chunk."""
        arrow = pa.Table.from_pandas(table, preserve_index=False)
        metadata = {**(arrow.schema.metadata or {}), b"seconds": json.dumps(seconds).encode()}
        stream = io.BytesIO()
        pq.write_table(arrow.replace_schema_metadata(metadata), stream)
        write_bytes(self._path(start), stream.getvalue())

    def tensors(self, name: str) -> dict[str, Tensor] | None:
        """Return the tensors kept under a name, if they are whole."""
        try:
            return load_file(self.folder / f"{name}.safetensors")
        except (OSError, SafetensorError):
            return None

    def keep_tensors(self, name: str, values: dict[str, Tensor]) -> None:
        """Keep tensors under a name."""
        whole = {key: value.contiguous() for key, value in values.items()}
        write_bytes(self.folder / f"{name}.safetensors", save(whole))

    def move_tensors(self, kind: str, folder: Path) -> None:
        """Move what was kept as `KIND.NAME` into a folder, as `NAME`, in place of what it held."""
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            for file in self.folder.glob(f"{kind}.*.safetensors"):
                shutil.move(file, folder / file.name.removeprefix(f"{kind}."))
        except OSError as error:
            raise CembenchError(f"cannot write {folder}: {error.strerror}") from error

    def clear(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, start: int) -> Path:
        return self.folder / f"{start}.parquet"

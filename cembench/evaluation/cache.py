"""A cache of finished chunks of an evaluation, on disk until the record is written."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.torch import load, save
from torch import Tensor

from cembench.util.errors import CembenchError
from cembench.util.files import write_bytes
from cembench.util.parquet import read_arrow
from cembench.util.seal import UNSEALED, read_sealed, seal


def attack_key(attack: str, start: int) -> str:
    """Return the name of the progress of an attack on the chunk that begins at an image."""
    return f"adversarial.{attack}.{start}"


def sample_key(sampler: str, number: int) -> str:
    """Return the name of a chunk of samples."""
    return f"samples.{sampler}.{number}"


class ChunkCache:
    """A folder of chunks, named by the content of what they are a part of.

    Chunks are independent, so an evaluation that was killed takes these and computes the rest.
    A file that is damaged, or of another chunk or evaluation, counts as missing.
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
            table = read_arrow(self._read(f"{start}.parquet"))
        except CembenchError:
            return None
        return table.to_pandas(use_threads=False), json.loads(table.schema.metadata[b"seconds"])

    def put(self, start: int, table: pd.DataFrame, seconds: dict[str, float]) -> None:
        """Keep the table and seconds of a chunk."""
        arrow = pa.Table.from_pandas(table, preserve_index=False)
        metadata = {"seconds": json.dumps(seconds), "seal": UNSEALED}
        stream = io.BytesIO()
        pq.write_table(arrow.replace_schema_metadata(arrow.schema.metadata | metadata), stream)
        self._write(f"{start}.parquet", stream.getvalue())

    def tensors(self, name: str) -> dict[str, Tensor] | None:
        """Return the tensors kept under a name, if they are whole."""
        try:
            return load(self._read(f"{name}.safetensors"))
        except CembenchError:
            return None

    def keep_tensors(self, name: str, values: dict[str, Tensor]) -> None:
        """Keep tensors under a name."""
        whole = {key: value.contiguous() for key, value in values.items()}
        self._write(f"{name}.safetensors", save(whole, {"seal": UNSEALED}))

    def move_tensors(self, kind: str, folder: Path) -> None:
        """Move what was kept as `KIND.NAME` into a folder, as `NAME`, in place of what it held."""
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            for file in self.folder.glob(f"{kind}.*.safetensors"):
                shutil.move(file, folder / file.name.removeprefix(f"{kind}."))
        except OSError as error:
            raise CembenchError(f"cannot write {folder}: {error.strerror}") from error

    def restart(self) -> None:
        """Forget all that was kept."""
        self.clear()
        self.folder.mkdir(parents=True)

    def clear(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _read(self, name: str) -> bytes:
        return read_sealed(self.folder / name, f"{self.folder.name}/{name}")

    def _write(self, name: str, content: bytes) -> None:
        write_bytes(self.folder / name, seal(content, f"{self.folder.name}/{name}"))

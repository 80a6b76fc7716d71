"""A cache of finished chunks of an evaluation, on disk until the record is written."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from cembench.util.errors import CembenchError
from cembench.util.files.layout import RunLayout
from cembench.util.files.locks import locked
from cembench.util.files.parquet import read_table, write_table
from cembench.util.files.seal import UNSEALED, open_sealed, write_sealed
from cembench.util.files.tensors import read_tensors, write_tensors
from cembench.util.stages import stage

log = logging.getLogger("cembench")
HIDDEN = re.compile(r"\.(?P<stem>.+)\.json\.(lock|[0-9a-f]{12}\.parts)")


def attack_key(attack: str, start: int) -> str:
    """Return the name of the progress of an attack on the chunk that begins at an image."""
    return f"adversarial.{attack}.{start}"


def sample_key(sampler: str, number: int) -> str:
    """Return the name of a chunk of samples."""
    return f"samples.{sampler}.{number}"


class ChunkCache:
    """A folder of chunks beside a record, named by the content of what they are a part of.

    Chunks are independent, so an evaluation that was killed takes these and computes the rest.
    A file that is damaged, or of another chunk or evaluation, counts as missing.
    """

    def __init__(self, record: Path, key: str) -> None:
        self.folder = RunLayout.cache(record, key)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CembenchError(f"cannot write {record.parent}: {error.strerror}") from error

    def get(self, start: int) -> tuple[pd.DataFrame, dict[str, float]] | None:
        """Return the table and seconds of the chunk that begins at an image, if it is whole."""
        try:
            table = read_table(*self._named(f"{start}.parquet"))
        except CembenchError:
            return None
        return table, table.attrs.pop("seconds")

    def whole(self, start: int) -> pd.DataFrame:
        """Return the table of a chunk that was kept.

        Raises:
            CembenchError: when it is gone.
        """
        found = self.get(start)
        if found is None:
            raise CembenchError(f"{self.folder}: verdicts are gone; evaluate again")
        return found[0]

    def put(self, start: int, table: pd.DataFrame, seconds: dict[str, float]) -> None:
        """Keep the table and seconds of a chunk."""
        path, name = self._named(f"{start}.parquet")
        with stage("saving"):
            write_table(path, table, {"seconds": seconds}, name)

    def tensors(self, name: str) -> dict[str, Tensor] | None:
        """Return the tensors kept under a name, if they are whole."""
        try:
            return read_tensors(*self._named(f"{name}.safetensors"))
        except CembenchError:
            return None

    def keep_tensors(self, name: str, values: dict[str, Tensor]) -> None:
        """Keep tensors under a name."""
        path, seal_name = self._named(f"{name}.safetensors")
        with stage("saving"):
            write_tensors(path, values, name=seal_name)

    def obtain(self, name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return the tensors kept under a name; those that are made, and kept, where none are."""
        values = self.tensors(name)
        if values is None:
            values = make()
            self.keep_tensors(name, values)
        else:
            log.info("%s: kept, not computed again", self._named(name)[0])
        return values

    def value(self, name: str, make: Callable[[], Any]) -> Any:
        """Return the plain value kept under a name; one that is made, and kept, where none is."""
        path, seal_name = self._named(f"{name}.json")
        try:
            with open_sealed(path, seal_name) as file:
                return json.load(file)["value"]
        except CembenchError:
            value = make()
        with stage("saving"):
            write_sealed(path, json.dumps({"seal": UNSEALED, "value": value}).encode(), seal_name)
        return value

    def names(self, kind: str) -> list[str]:
        """Return the names of the form `KIND.REST` under which there are tensors."""
        return [file.stem for file in self.folder.glob(f"{kind}.*.safetensors")]

    def restart(self) -> None:
        """Forget all that was kept."""
        self.clear()
        self.folder.mkdir(parents=True)

    def clear(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _named(self, file: str) -> tuple[Path, str]:
        """Return the path of a file, and the name that it is sealed under."""
        return self.folder / file, f"{self.folder.name}/{file}"


def kept(cache: ChunkCache | None, name: str, make: Callable[[], Any]) -> Any:
    """Return the plain value that a cache keeps under a name; without a cache it is made."""
    return make() if cache is None else cache.value(name, make)


def clear_abandoned(record: Path) -> None:
    """Remove locks and caches that killed evaluations left, now that there is a record.

    These are evaluations of the same checkpoint and protocol, which may have had other settings
    then. What a process is at is left alone.
    """
    left: dict[str, list[Path]] = {}
    for path in record.parent.glob(".*"):
        match = HIDDEN.fullmatch(path.name)
        if match and _protocol(match["stem"]) == _protocol(record.stem):
            left.setdefault(f"{match['stem']}.json", []).append(path)
    for name, paths in left.items():
        lock = RunLayout.record_lock(record.with_name(name))
        with suppress(CembenchError), locked(lock, name, patience=0):  # which removes the lock
            for path in paths:
                shutil.rmtree(path, ignore_errors=True)


def _protocol(stem: str) -> str:
    """Return the name of a record without the digest of settings that differ from the shipped."""
    return re.sub("-[0-9a-f]{6}$", "", stem)

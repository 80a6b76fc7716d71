"""Prepared data: images that were decoded once and kept as bytes, in the user's cache.

Each split has a folder below `prepared/`, named after what decided its content: shards of bytes,
one image after the other, and an index.
"""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from cembench.util.errors import CembenchError
from cembench.util.files.layout import user_cache
from cembench.util.files.locks import locked
from cembench.util.files.seal import UNSEALED, open_sealed, write_sealed
from cembench.util.settings import Count, Settings

SHARD_BYTES = 256 * 2**20
MOST_SHARDS = 128  # a process may keep all of them open
INDEX = "index.json"


class Index(Settings):
    """Index of a prepared split.

    Attributes:
        format: of the folder.
        title: the data set and the split, for people.
        images: their number.
        shape: channels, height and width.
        shard_images: images in each shard but the last.
        sha256: of each shard; empty for one that is not finished.
        fingerprint: of the split; empty until all shards are finished.
    """

    format: Literal[1] = 1
    title: str
    images: Count
    shape: Annotated[list[Count], Field(min_length=3, max_length=3)]
    shard_images: Count
    sha256: list[str]
    fingerprint: str = ""

    @classmethod
    def begin(cls, title: str, images: int, shape: tuple[int, int, int]) -> Index:
        """Return the index of a split of which nothing is finished."""
        each = shape[0] * shape[1] * shape[2]
        size = max(1, SHARD_BYTES // each, -(-images // MOST_SHARDS))
        shards = [""] * -(-images // size)
        return cls(title=title, images=images, shape=[*shape], shard_images=size, sha256=shards)

    @property
    def shards(self) -> range:
        """The numbers of the shards."""
        return range(len(self.sha256))

    @property
    def bytes_each(self) -> int:
        """The bytes of an image."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    def rows(self, shard: int) -> range:
        """Return the rows in a shard."""
        first = shard * self.shard_images
        return range(first, min(first + self.shard_images, self.images))

    def size(self, shard: int) -> int:
        """Return the bytes of a shard."""
        return len(self.rows(shard)) * self.bytes_each

    def with_shard(self, shard: int, sha256: str) -> Index:
        """Return the index with a shard that is finished."""
        known = [*self.sha256]
        known[shard] = sha256
        return self.model_copy(update={"sha256": known})


class Prepared:
    """The folder of a prepared split.

    Attributes:
        folder: its path.
    """

    def __init__(self, key: str) -> None:
        self.folder = prepared_root() / key

    def shard(self, number: int) -> Path:
        """Return the file of a shard."""
        return self.folder / f"{number:05}.u8"

    def index(self) -> Index | None:
        """Return the index; None where there is none, or a damaged one."""
        try:
            with open_sealed(self.folder / INDEX, INDEX) as file:
                values = json.load(file)
            return Index.parse({key: value for key, value in values.items() if key != "seal"})
        except (CembenchError, ValueError):
            return None

    def write(self, index: Index) -> None:
        """Write the index.

        Raises:
            CembenchError: when it cannot be written.
        """
        content = json.dumps({**index.dump(), "seal": UNSEALED}, indent=1)
        write_sealed(self.folder / INDEX, content.encode(), INDEX)

    def whole(self) -> Index | None:
        """Return the index if all shards are finished, and there in the size that they had."""
        index = self.index()
        if index is None or not index.fingerprint:
            return None
        with suppress(OSError):
            if all(self.shard(s).stat().st_size == index.size(s) for s in index.shards):
                return index
        return None

    @property
    def size(self) -> int:
        """The bytes of all its files."""
        return sum(file.stat().st_size for file in self.folder.iterdir())

    def remove(self) -> None:
        """Remove the folder.

        Raises:
            CembenchError: while another process prepares it, or when it cannot be removed.
        """
        with locked(self.lock, str(self.folder)):
            (self.folder / INDEX).unlink(missing_ok=True)  # first: no half passes for whole
            shutil.rmtree(self.folder)

    @property
    def lock(self) -> Path:
        """The lock of the process that prepares it."""
        return self.folder.with_name(f".{self.folder.name}.lock")


def prepared_root() -> Path:
    """Return the folder with all prepared splits of this user."""
    return user_cache() / "prepared"


def all_prepared() -> list[Prepared]:
    """Return all prepared splits, finished or not."""
    return [Prepared(path.name) for path in sorted(prepared_root().glob("*/"))]

"""Sources: the encoded images of a split, as files of a folder or rows of parquet files."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(eq=False)
class Source(ABC):
    """Encoded images of a split; it can be sent to another process.

    Attributes:
        root: the folder of the data set.
        labels: of each image, 0..len(classes)-1, int64, N.
        classes: class names in label order.
    """

    root: Path
    labels: np.ndarray
    classes: tuple[str, ...]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    @abstractmethod
    def name(self, row: int) -> str:
        """Return what messages call an image: its file, or its row in a file."""

    @abstractmethod
    def read(self, row: int) -> bytes:
        """Return the content of an image file.

        Raises:
            CembenchError, OSError: when it cannot be read.
        """

    @abstractmethod
    def files(self) -> Iterator[str]:
        """Return the names of all files that hold images, below the root."""

    def stamp(self) -> str:
        """Return a digest of the files: their names below the root, sizes and times.

        Raises:
            OSError: when one is missing.
        """
        sha, root = hashlib.sha256(), str(self.root)
        for name in self.files():
            found = os.stat(f"{root}/{name}")  # noqa: PTH116 - a million of paths take seconds more
            sha.update(os.fsencode(f"{name}\0{found.st_size}\0{found.st_mtime_ns}\n"))
        return sha.hexdigest()


@dataclass(eq=False)
class FileSource(Source):
    """Images in files of their own.

    Attributes:
        names: of the files, below the root.
    """

    names: Sequence[str]

    @classmethod
    def of(
        cls, root: Path, classes: tuple[str, ...], entries: Iterable[tuple[str, int]]
    ) -> FileSource:
        """Return the source of files, each given by its name below the root and its label."""
        names, labels = Names(), array("q")
        for name, label in entries:
            names.append(name)
            labels.append(label)
        return cls(root, np.array(labels, np.int64), classes, names)

    def name(self, row: int) -> str:
        """Return the path."""
        return str(self.root / self.names[row])

    def read(self, row: int) -> bytes:
        """Return the content of the file."""
        return (self.root / self.names[row]).read_bytes()

    def files(self) -> Iterator[str]:
        """Return the names of the files."""
        return iter(self.names)


class Names(Sequence[str]):
    """Names of many files in two blocks of memory: a list of texts takes three times as much."""

    def __init__(self) -> None:
        self._text, self._ends = bytearray(), array("q", [0])

    def append(self, name: str) -> None:
        """Add a name at the end."""
        self._text += os.fsencode(name)
        self._ends.append(len(self._text))

    def __len__(self) -> int:
        """Return the number of names."""
        return len(self._ends) - 1

    def __getitem__(self, row: Any) -> Any:
        """Return a name."""
        return os.fsdecode(bytes(self._text[self._ends[row] : self._ends[row + 1]]))

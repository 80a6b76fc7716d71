"""Sources: the encoded images of a split, as files of a folder or rows of parquet files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Source(ABC):
    """Encoded images of a split; it can be sent to another process.

    Attributes:
        labels: of each image, 0..len(classes)-1.
        classes: class names in label order.
    """

    labels: list[int]
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
            OSError: when it cannot be read.
        """


@dataclass(frozen=True)
class FileSource(Source):
    """Images in files of their own.

    Attributes:
        paths: of each image.
    """

    paths: list[str]

    def name(self, row: int) -> str:
        """Return the path."""
        return self.paths[row]

    def read(self, row: int) -> bytes:
        """Return the content of the file."""
        return Path(self.paths[row]).read_bytes()

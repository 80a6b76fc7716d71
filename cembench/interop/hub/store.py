"""Store of pushed runs: files below an address."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from cembench.interop.hub.address import Address
from cembench.interop.hub.manifest import LONGEST, MANIFEST, Manifest
from cembench.util.errors import CembenchError, blaming, said
from cembench.util.files import CHUNK
from cembench.util.files.fetched import without_password
from cembench.util.files.names import file_name


class Store(ABC):
    """A place of files below an address.

    Attributes:
        address: the address.
        file: the file that it means; the run itself if empty.
        shows_progress: whether its package shows the progress of transfers.
    """

    shows_progress: ClassVar[bool] = False
    address: Address
    file: str

    @property
    def name(self) -> str:
        """The name of the run.

        Raises:
            ConfigError: when no folder can have it.
        """
        with blaming(self.address):
            return file_name(self.place.rpartition("/")[2])

    @property
    @abstractmethod
    def place(self) -> str:
        """What the name of the run is the last part of."""

    @abstractmethod
    def size(self, file: str) -> int | None:
        """Return the bytes of a file; None where there is none."""

    @abstractmethod
    def open(self, file: str) -> BinaryIO:
        """Open a file for reading."""

    @abstractmethod
    def version(self, file: str) -> str:
        """Return what changes when a file does."""

    @abstractmethod
    def write(self, files: Mapping[str, Path | bytes], manifest: Manifest, **options: Any) -> str:
        """Write a run, and return the address to cite."""

    def missing(self, file: str) -> CembenchError:
        """Return what to say when a file is not there."""
        return CembenchError(f"{self.address}: no {file} here")

    def parts(self, file: str, most: int) -> Iterator[bytes]:
        """Yield the content of a file in parts.

        Raises:
            CembenchError: when it cannot be read, or has more bytes than `most`.
        """
        with reaching(self.address), self.open(file) as source:
            while part := source.read(CHUNK):
                if (most := most - len(part)) < 0:
                    raise CembenchError(f"{self.address}: {file} is longer than it should be")
                yield part

    def manifest(self) -> tuple[Manifest, bytes] | None:
        """Return the manifest of the run, as it is and as bytes; None where there is none.

        Raises:
            CembenchError: when it cannot be read or used.
        """
        with reaching(self.address):
            if self.size(MANIFEST) is None:
                return None
        content = b"".join(self.parts(MANIFEST, LONGEST))
        return Manifest.read(content, f"{self.address}: its {MANIFEST}"), content


@contextmanager
def reaching(address: Address) -> Iterator[None]:
    """Say in one line what goes wrong with a store, whose packages raise what they like."""
    try:
        yield
    except CembenchError:
        raise
    except FileNotFoundError as error:
        raise CembenchError(f"{address}: there is nothing here") from error
    except PermissionError as error:
        raise CembenchError(f"{address}: access denied; are your credentials set?") from error
    except Exception as error:
        raise CembenchError(f"{address}: {without_password(said(error))}") from error

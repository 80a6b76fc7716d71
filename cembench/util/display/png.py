"""PNG files as values: bytes that a notebook shows as a picture."""

from __future__ import annotations

import struct
from pathlib import Path

from cembench.util.files import write_bytes


class Png(bytes):
    """The content of a PNG file."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        width, height = struct.unpack(">II", self[16:24])
        return width, height

    def save(self, path: str | Path) -> Path:
        """Write it to a file, whole or not at all, and return the path.

        Raises:
            CembenchError: when it cannot be written.
        """
        write_bytes(Path(path), self)
        return Path(path)

    def __repr__(self) -> str:
        return "<PNG of {}×{} pixels>".format(*self.size)

    __str__ = __repr__

    def _repr_png_(self) -> bytes:
        return bytes(self)

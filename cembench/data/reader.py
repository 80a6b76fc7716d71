"""Reader of a split's images: each is decoded when it is asked for, and all have one shape."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from cembench.data.decode import Decoder
from cembench.data.source import Source
from cembench.util.errors import CembenchError


class Reader:
    """A source and its decoder; it can be sent to another process.

    Attributes:
        source: the encoded images.
        decoder: brings them to one mode, and to one size if it has one.
    """

    def __init__(self, source: Source, decoder: Decoder) -> None:
        self.source, self.decoder = source, decoder

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.source)

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the first image, which all have."""
        channels, height, width = self._decoded(content_of(self.source, 0), 0).shape
        return channels, height, width

    @property
    def bytes_each(self) -> int:
        """The bytes of a decoded image."""
        return int(np.prod(self.shape))

    def read(self, row: int) -> np.ndarray:
        """Return an image, uint8, C×H×W.

        Raises:
            CembenchError: naming an image that cannot be read, or has another shape.
        """
        return self.decode(content_of(self.source, row), row)

    def decode(self, content: bytes, row: int) -> np.ndarray:
        """Return the image in the content of a row, as `read` does."""
        image = self._decoded(content, row)
        if image.shape != self.shape:
            (height, width), (high, wide) = image.shape[1:], self.shape[1:]
            raise CembenchError(
                f"{self.source.name(row)} has {width}×{height} pixels and the first image "
                f"{wide}×{high}; set data.size, or data.resize and data.centre_crop"
            )
        return image

    def _decoded(self, content: bytes, row: int) -> np.ndarray:
        return self.decoder.decode(content, self.source.name(row))


def content_of(source: Source, row: int) -> bytes:
    """Return the content of an image file.

    Raises:
        CembenchError: naming a file that cannot be read.
    """
    try:
        return source.read(row)
    except OSError as error:
        reason = error.strerror or error
        raise CembenchError(f"{source.name(row)} cannot be read: {reason}") from error

"""Reader of a split's images: each is decoded when it is asked for, and all have one shape."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np

from cembench.data.files.decode import Decoder
from cembench.data.files.source import Source
from cembench.util.ahead import ahead
from cembench.util.devices import share_of_cores
from cembench.util.errors import CembenchError

BATCH_BYTES = 2**20  # of decoded images that a thread makes at a time
MOST_THREADS = 16  # more wait for the interpreter


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

    def decode(self, content: bytes, row: int) -> np.ndarray:
        """Return the image in the content of a row, uint8, C×H×W.

        Raises:
            CembenchError: naming an image that cannot be read, or has another shape.
        """
        image = self._decoded(content, row)
        if image.shape != self.shape:
            (height, width), (high, wide) = image.shape[1:], self.shape[1:]
            raise CembenchError(
                f"{self.source.name(row)} has {width}×{height} pixels and the first image "
                f"{wide}×{high}; set data.size, or data.resize and data.centre_crop"
            )
        return image

    def batches(self, rows: range) -> Iterator[np.ndarray]:
        """Return images in order, uint8, M×C×H×W, a megabyte at a time, decoded by threads.

        Raises:
            CembenchError: as `decode` does, and naming a file that cannot be read.
        """
        size = max(1, BATCH_BYTES // self.bytes_each)
        parts = (rows[at : at + size] for at in range(0, len(rows), size))
        contents = ((part, [content_of(self.source, row) for row in part]) for part in parts)
        threads = min(share_of_cores(), MOST_THREADS)
        with ThreadPoolExecutor(threads) as pool:
            yield from ahead(pool, self._stacked, contents, 2 * threads)

    def _stacked(self, batch: tuple[range, list[bytes]]) -> np.ndarray:
        rows, contents = batch
        images = np.empty((len(rows), *self.shape), np.uint8)
        for image, content, row in zip(images, contents, rows, strict=True):
            image[...] = self.decode(content, row)
        return images

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

"""Decoding of image files: to bytes of one mode and size."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from cembench.util.errors import CembenchError

Mode = Literal["RGB", "L"]
T = TypeVar("T")


@dataclass(frozen=True)
class Decoder:
    """Image files to arrays; it can be sent to another process.

    Attributes:
        mode: `RGB` or `L` (grey).
        size: height and width that images are brought to, by scaling and a centre crop; as they are
            unless given.
    """

    mode: Mode
    size: int | None = None

    def decode(self, content: bytes, name: str) -> np.ndarray:
        """Return an image as uint8, C×H×W.

        Args:
            content: of the file.
            name: what messages call it.

        Raises:
            CembenchError: naming an image that is damaged or has more than 8 bits a channel.
        """
        array = _opened(
            content, name, lambda image: np.asarray(self._fit(image.convert(self.mode)))
        )
        return array[None] if self.mode == "L" else array.transpose(2, 0, 1)

    def _fit(self, image: Image.Image) -> Image.Image:
        if self.size is None:
            return image
        scale = self.size / min(image.size)
        width, height = (max(self.size, round(side * scale)) for side in image.size)
        left, top = (width - self.size) // 2, (height - self.size) // 2
        resized = image.resize((width, height), Image.Resampling.BICUBIC)
        return resized.crop((left, top, left + self.size, top + self.size))


def mode_of(content: bytes, name: str) -> Mode:
    """Return the mode that an image is read in unless the settings say another.

    Raises:
        CembenchError: naming an image that cannot be read.
    """
    return _opened(content, name, lambda image: "L" if image.mode in ("1", "L") else "RGB")


def _opened(content: bytes, name: str, use: Callable[[Image.Image], T]) -> T:
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.mode.startswith(("I", "F")):
                raise CembenchError(f"{name} has more than 8 bits a channel; convert it")
            return use(image)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, TypeError) as error:
        raise CembenchError(f"{name}: not a readable image; replace or remove it") from error

"""Decoding of image files: to bytes of one mode and size."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from PIL import Image

from cembench.util.errors import CembenchError

Mode = Literal["RGB", "L"]
Interpolation = Literal["bicubic", "bilinear"]
T = TypeVar("T")

PIXELS = 2**26  # of an image at most, before and after scaling: a quarter of a gigabyte in Pillow
SIXTEEN_BITS = re.compile(r"\w;16[BLN]\b")  # what Pillow says of channels that it cuts to 8 bits
TOO_MANY = f"more than {PIXELS:,} pixels; make it smaller, or remove it"
warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # such images are refused by name


@dataclass(frozen=True)
class Decoder:
    """Image files to arrays; it can be sent to another process.

    Pillow decodes and scales: its arithmetic is in whole numbers, so the bytes are the same on all
    machines and for any number of processes.

    Attributes:
        mode: `RGB` or `L` (grey).
        resize: pixels of the shorter side, to which images are scaled, antialiased.
        centre_crop: height and width of what is cut from the centre after that.
        interpolation: of the scaling.
    """

    mode: Mode
    resize: int | None = None
    centre_crop: int | None = None
    interpolation: Interpolation = "bicubic"

    def decode(self, content: bytes, name: str) -> np.ndarray:
        """Return an image as uint8, C×H×W.

        Args:
            content: of the file.
            name: what messages call it.

        Raises:
            CembenchError: naming an image that is damaged, has more than 8 bits a channel, too many
                pixels, or fewer than the crop.
        """
        array = _opened(content, name, lambda image: np.asarray(self._fit(image, name)))
        return array[None] if self.mode == "L" else array.transpose(2, 0, 1)

    def _fit(self, image: Image.Image, name: str) -> Image.Image:
        image.info.pop("transparency", None)  # of a palette; Pillow warns that it gets lost
        image = image if image.mode == self.mode else image.convert(self.mode)
        return self._cropped(self._scaled(image, name), name)

    def _scaled(self, image: Image.Image, name: str) -> Image.Image:
        if self.resize is None:
            return image
        scale = self.resize / min(image.size)
        width, height = (max(self.resize, round(side * scale)) for side in image.size)
        _require_bounded(width, height, f"{name}, with a shorter side of {self.resize},")
        return image.resize((width, height), Image.Resampling[self.interpolation.upper()])

    def _cropped(self, image: Image.Image, name: str) -> Image.Image:
        if self.centre_crop is None:
            return image
        crop, (width, height) = self.centre_crop, image.size
        if min(width, height) < crop:
            raise CembenchError(
                f"{name} has {width}×{height} pixels, fewer than data.centre_crop={crop}; set "
                "data.resize"
            )
        left, top = (width - crop) // 2, (height - crop) // 2
        return image.crop((left, top, left + crop, top + crop))


def mode_of(content: bytes, name: str) -> Mode:
    """Return the mode that an image is read in unless the settings say another.

    Raises:
        CembenchError: naming an image that cannot be read.
    """
    return _opened(content, name, lambda image: "L" if image.mode in ("1", "L") else "RGB")


def _opened(content: bytes, name: str, use: Callable[[Image.Image], T]) -> T:
    try:
        with Image.open(io.BytesIO(content)) as image:
            _require_bounded(*image.size, name)
            if _is_deep(image):
                raise CembenchError(f"{name} has more than 8 bits a channel; convert it")
            return use(image)
    except (CembenchError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise CembenchError(f"{name} has {TOO_MANY}") from error
    except Exception as error:  # damaged files make Pillow's decoders raise anything
        raise CembenchError(f"{name}: not a readable image; replace or remove it") from error


def _require_bounded(width: int, height: int, name: str) -> None:
    if width * height > PIXELS:
        raise CembenchError(f"{name} has {width}×{height}, {TOO_MANY}")


def _is_deep(image: Image.Image) -> bool:
    """Tell 16-bit images, also those that Pillow would read as 8 bits by cutting the lower ones."""
    first = getattr(image, "tile", None) or [""]
    return image.mode.startswith(("I", "F")) or SIXTEEN_BITS.search(str(first[0])) is not None

"""Pictures of samples, small enough for a page."""

from __future__ import annotations

import base64
import io
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from PIL import Image, ImageChops

from cembench.util.display.cells import CELL, Cells, chain_cells, grid_cells
from cembench.util.errors import CembenchError
from cembench.util.files import read_bytes

LOSSLESS = 60_000  # bytes up to which a picture keeps every pixel
LONGEST = 16_383  # pixels of a side that WebP can hold
GREY = "#7a8594"  # of letters, to be read on white and on black


@dataclass(frozen=True)
class Picture:
    """A picture of a sampler's samples; a strip shows how chains move, not where they end."""

    file: Path
    sampler: str
    strip: bool
    content: bytes
    image: Image.Image

    @cached_property
    def cells(self) -> Cells | None:
        """Where each image lies; None where that is not known, as for counterfactuals."""
        return (chain_cells if self.strip else grid_cells)(*self.image.size)

    @property
    def places(self) -> dict[str, int]:
        """Return the same as plain values."""
        return {} if self.cells is None else asdict(self.cells)

    @property
    def size(self) -> tuple[int, int]:
        """Its width and height in pixels."""
        return self.image.size

    def uri(self) -> str:
        """Return it as a URI that holds all of it."""
        return f"data:image/webp;base64,{base64.b64encode(self.webp()).decode()}"

    def webp(self) -> bytes:
        """Return it as WebP, without the paper around the cells."""
        image = self.image if self.cells is None else _without_paper(self.image, self.cells)
        data = _webp(image, lossless=True)
        if len(data) > LOSSLESS:
            data = min(data, _webp(image, lossless=False), key=len)
        return data


def load_picture(file: Path, sampler: str, strip: bool) -> Picture:
    """Read a picture.

    Raises:
        CembenchError: when it is damaged.
    """
    content = read_bytes(file)
    try:
        image = Image.open(io.BytesIO(content), formats=["PNG"]).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        damaged = f"{file}: damaged picture; evaluate again, or delete it"
        raise CembenchError(damaged) from error
    image.thumbnail((LONGEST, LONGEST))  # leaves smaller ones as they are
    return Picture(file, sampler, strip, content, image)


def _webp(image: Image.Image, *, lossless: bool) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "webp", lossless=lossless, quality=80, method=4)
    return stream.getvalue()


def _without_paper(image: Image.Image, cells: Cells) -> Image.Image:
    """Return a picture whose white paper is transparent and whose letters are grey."""
    inside = Image.new("L", image.size, 0)
    for left, top in cells.corners():
        box = left, top, left + CELL, top + CELL
        if ImageChops.invert(image.crop(box)).getbbox() is not None:  # a white one is empty
            inside.paste(255, box)
    letters = ImageChops.invert(image.convert("L"))
    made = Image.composite(image, Image.new("RGB", image.size, GREY), inside)
    made.putalpha(ImageChops.lighter(inside, letters))
    return made

"""Pictures of samples, small enough for a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from PIL import Image, ImageChops

from cembench.util.display.cells import Cells, chain_cells, edited_cells, grid_cells
from cembench.util.errors import CembenchError
from cembench.util.files import read_bytes

LOSSLESS = 60_000  # bytes up to which a picture keeps every pixel
LONGEST = 16_383  # pixels of a side that WebP can hold
GREY = "#7a8594"  # of letters, to be read on white and on black
Kind = Literal["grid", "chains", "edited"]
CELLS: dict[Kind, Callable[[int, int], Cells | None]] = {
    "grid": grid_cells,
    "chains": chain_cells,
    "edited": edited_cells,
}


@dataclass(frozen=True)
class Picture:
    """A picture of a sampler's samples.

    Attributes:
        file: where it was read from.
        sampler: its title.
        kind: where samples end, how chains move, or counterfactuals.
        content: the file.
        image: the same, read.
    """

    file: Path
    sampler: str
    kind: Kind
    content: bytes
    image: Image.Image

    @property
    def strip(self) -> bool:
        """Whether it shows how chains move, not where they end."""
        return self.kind == "chains"

    @cached_property
    def cells(self) -> Cells | None:
        """Where each image lies; None where that is not known."""
        return CELLS[self.kind](*self.image.size)

    @property
    def places(self) -> dict[str, Any]:
        """Return the same as plain values."""
        return {} if self.cells is None else asdict(self.cells)

    @property
    def size(self) -> tuple[int, int]:
        """Its width and height in pixels."""
        return self.image.size

    def uri(self) -> str:
        """Return it as a URI that holds all of it."""
        return f"data:image/webp;base64,{base64.b64encode(self.webp()).decode()}"

    def webp(self, *, quick: bool = False) -> bytes:
        """Return it as WebP, without the paper around the cells.

        Args:
            quick: take a third of the time, for a third more bytes; pixels are the same.
        """
        image = self.image if self.cells is None else _without_paper(self.image, self.cells)
        data = _webp(image, lossless=True, quality=0 if quick else 80, method=0 if quick else 4)
        if len(data) > LOSSLESS:
            data = min(data, _webp(image, lossless=False, quality=80, method=4), key=len)
        return data


def load_picture(file: Path, sampler: str, kind: Kind) -> Picture:
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
    return Picture(file, sampler, kind, content, image)


def _webp(image: Image.Image, *, lossless: bool, quality: int, method: int) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "webp", lossless=lossless, quality=quality, method=method)
    return stream.getvalue()


def _without_paper(image: Image.Image, cells: Cells) -> Image.Image:
    """Return a picture whose white paper is transparent and whose letters are grey."""
    inside = Image.new("L", image.size, 0)
    for left, top in cells.corners():
        box = left, top, left + cells.side, top + cells.side
        if ImageChops.invert(image.crop(box)).getbbox() is not None:  # a white one is empty
            inside.paste(255, box)
    letters = ImageChops.invert(image.convert("L"))
    made = Image.composite(image, Image.new("RGB", image.size, GREY), inside)
    made.putalpha(ImageChops.lighter(inside, letters))
    return made

"""Pictures of samples, small enough for a page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from cembench.util.errors import CembenchError
from cembench.util.files import read_bytes

LOSSLESS = 60_000  # bytes up to which a picture keeps every pixel
LONGEST = 16_383  # pixels of a side that WebP can hold


@dataclass(frozen=True)
class Picture:
    """A picture of a sampler's samples; a strip shows how chains move, not where they end."""

    file: Path
    sampler: str
    strip: bool
    content: bytes
    image: Image.Image

    def uri(self) -> str:
        """Return it as a URI that holds all of it, as WebP."""
        data = self._webp(lossless=True)
        if len(data) > LOSSLESS:
            data = min(data, self._webp(lossless=False), key=len)
        return f"data:image/webp;base64,{base64.b64encode(data).decode()}"

    def _webp(self, *, lossless: bool) -> bytes:
        stream = io.BytesIO()
        self.image.save(stream, "webp", lossless=lossless, quality=80, method=4)
        return stream.getvalue()


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

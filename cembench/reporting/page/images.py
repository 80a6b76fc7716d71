"""Images of a run: clean and adversarial ones, and what its network says of them."""

from __future__ import annotations

import base64
import hashlib
import io
import math
import re
from collections.abc import Container
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup
from PIL import Image

from cembench.evaluation.record import Record
from cembench.util.files.layout import RunLayout
from cembench.util.files.names import shown
from cembench.util.lazy import lazy_imports

with lazy_imports():
    from cembench.reporting.page.evidence import Evidence, read_evidence

COUNT = 64  # images of a run, unless another number is asked for
COLUMNS, LARGEST = 16, 96  # images in a row of a sheet; pixels of their longer side at most
FOLDER = "images"  # of sheets that the page has no room for
NAME = re.compile(r"run-\d+-([0-9a-f]{12})\.png")


@dataclass(frozen=True)
class Sheet:
    """Images of a run as one picture, and figures of each.

    Attributes:
        anchor: the run.
        png: the clean images, then those of each attack, `COLUMNS` in a row.
        facts: what the script of the page needs to show them.
    """

    anchor: str
    png: bytes
    facts: dict[str, Any]

    @property
    def file(self) -> str:
        """The name of a file beside the page, which no other sheet has."""
        return f"{FOLDER}/{self.anchor}-{_digest(self.png)}.png"

    def inside(self) -> Markup:
        """Return the element that holds all of it."""
        return self.element(f"data:image/png;base64,{base64.b64encode(self.png).decode()}")

    def beside(self) -> Markup:
        """Return the element for a page that has the picture in a file beside it."""
        return self.element(self.file)

    def element(self, source: str) -> Markup:
        """Return the element, whose picture is at an address."""
        facts = htmlsafe_json_dumps(self.facts, separators=(",", ":"))
        alt = "Clean images, then adversarial ones attack by attack"
        text = Markup('<div class="images" data-images=\'{}\'><img src="{}" alt="{}"></div>')
        return text.format(facts, source, alt)


def lost(path: Path, record: Record) -> bool:
    """Return whether a record is about attacks whose images were not kept."""
    attacked = record.kind == "classifier" and len(record.figures) > 1
    return attacked and not (RunLayout.adversarial(path).is_dir() or RunLayout.collection(path))


def kept(path: Path, record: Record) -> bool:
    """Return whether adversarial images of a record were kept."""
    return record.kind == "classifier" and RunLayout.adversarial(path).is_dir()


def load_sheet(path: Path, record: Record, anchor: str, count: int) -> Sheet | None:
    """Read the images of a record that were kept; None where there are none.

    Args:
        path: the record's file.
        record: the same, read.
        anchor: the run on the page.
        count: images at most: a fixed random choice, the same for all runs on the same images.

    Raises:
        CembenchError: when the checkpoint, the data or a file beside the record is missing,
            damaged or of others.
    """
    if count == 0 or not kept(path, record):
        return None
    found = read_evidence(path, record, count)
    names = shown(", ".join(found.attacks)) or "no attack"
    facts = {
        "group": f"{record.fingerprint[:12]} {record.threat}",
        "run": shown(record.run),
        "rule": f"{len(found.images)} of {found.total} attacked images: a fixed random choice, the "
        f"same for every run on them. Adversarial images are those of {names}, as 8-bit files hold "
        "them; differences are magnified around grey. log p is LSE f(x, ·): log p(x) up to a "
        "constant of the network.",
        "factors": found.factors,
        "columns": COLUMNS,
        "size": _size(*reversed(found.clean.shape[2:])),
        "classes": [shown(one) for one in found.classes],
        "attacks": [shown(one) for one in found.attacks],
        "norms": list(found.attacks.values()),
        "images": found.images,
    }
    return Sheet(anchor, _sheet(found), facts)


def remove_outdated(out: Path, kept: Container[str]) -> None:
    """Remove sheets beside a page that an earlier page in its place had.

    These are files in its own folder of sheets whose names say what they hold; others stay.

    Args:
        out: the folder of the page.
        kept: the files that belong to it, by name.
    """
    folder, removed = out / FOLDER, False
    for file in [] if folder.is_symlink() else list(folder.glob("run-*.png")):
        named = NAME.fullmatch(file.name)
        if named is None or f"{FOLDER}/{file.name}" in kept or file.is_symlink():
            continue
        with suppress(OSError):
            if _digest(file.read_bytes()) == named[1]:
                file.unlink()
                removed = True
    if removed:
        with suppress(OSError):  # it is not empty
            folder.rmdir()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def _size(width: int, height: int) -> tuple[int, int]:
    scale = min(1.0, LARGEST / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _sheet(found: Evidence) -> bytes:
    pictures = [_picture(image) for image in (*found.clean, *found.adversarial)]
    width, height = pictures[0].size
    sheet = Image.new("RGB", (COLUMNS * width, height * math.ceil(len(pictures) / COLUMNS)))
    for number, picture in enumerate(pictures):
        sheet.paste(picture, (number % COLUMNS * width, number // COLUMNS * height))
    if found.clean.shape[1] == 1:
        sheet = sheet.convert("L")
    stream = io.BytesIO()
    sheet.save(stream, "png", optimize=True)
    return stream.getvalue()


def _picture(image: Any) -> Image.Image:
    array = image.permute(1, 2, 0).squeeze(2).numpy()
    picture = Image.fromarray(array).convert("RGB")
    return picture.resize(_size(*picture.size), Image.Resampling.BOX)

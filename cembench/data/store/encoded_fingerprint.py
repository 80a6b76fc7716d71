"""Fingerprint of a split that is decoded on the fly: of its encoded images, and of how they are
decoded. It is no fingerprint of decoded images, and never equal to one.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from cembench.data.files.reader import Reader, content_of
from cembench.data.files.source import Source
from cembench.util.errors import CembenchError
from cembench.util.files import read_bytes, write_text
from cembench.util.files.layout import user_cache
from cembench.util.progress import Bar


def encoded_fingerprint(reader: Reader, title: str) -> str:
    """Return the SHA-256 over shape, class names, labels, all image files and how they are decoded.

    Args:
        reader: the images.
        title: the data set and the split, for people.

    Raises:
        CembenchError: naming a file that cannot be read.
    """
    source = reader.source
    how = ("encoded", len(source), reader.shape, asdict(reader.decoder), source.classes)
    sha = hashlib.sha256(repr(how).encode())
    sha.update(source.labels.tobytes())
    sha.update(_content(source, title).encode())
    return sha.hexdigest()


def _content(source: Source, title: str) -> str:
    """Return the SHA-256 over all image files, once: it is remembered as long as none changes."""
    stamp = source.stamp()
    memory = user_cache() / "encoded" / stamp
    if (known := _remembered(memory)) is not None:
        return known
    found = _read(source, title)
    if source.stamp() != stamp:
        raise CembenchError("files changed while they were read; start again")
    with suppress(CembenchError):  # without a cache it only takes longer
        write_text(memory, found)
    return found


def _remembered(memory: Path) -> str | None:
    with suppress(CembenchError):
        text = read_bytes(memory).decode(errors="replace")
        return text if re.fullmatch(r"[0-9a-f]{64}", text) else None
    return None


def _read(source: Source, title: str) -> str:
    sha = hashlib.sha256()
    with Bar(f"reading {title}", len(source)) as bar:
        for row in range(len(source)):
            content = content_of(source, row)
            sha.update(len(content).to_bytes(8, "big") + content)
            bar.advance(1)
    return sha.hexdigest()

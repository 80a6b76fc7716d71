"""Seals: checksums inside files of any format, by which damage and mix-ups show.

Most formats read a flipped bit of a weight or a verdict as another weight or verdict. So a file
carries a seal, `sha256:` and 64 digits, anywhere in it: the digest of the file with zeros there.
It is no signature.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from cembench.util.errors import CembenchError
from cembench.util.files import CHUNK, replacing
from cembench.util.stopping import postponed

UNSEALED = "sha256:" + 64 * "0"
START = 4096  # bytes in which a checkpoint has its seal
_SEAL = re.compile(rb"sha256:[0-9a-f]{64}")


def seal(content: bytes, name: str = "") -> bytes:
    """Return content with its seal in the place of the first `UNSEALED` in it.

    Args:
        content: what to write; it holds `UNSEALED`.
        name: what the file is, where another sealed file must not pass for it.
    """
    file = io.BytesIO(content)
    put_seal(file, name)
    return file.getvalue()


def seal_at_start(content: bytes) -> str:
    """Return the seal in the first `START` bytes of a file; empty where there is none.

    It is read, and not checked.
    """
    found = _SEAL.search(content[:START])
    return "" if found is None else found[0].decode()


def put_seal(file: BinaryIO, name: str = "") -> None:
    """Write the seal of a file in the place of the first `UNSEALED` in it."""
    place, found, fitting = _inspect(file, name)
    assert found == UNSEALED.encode(), "nowhere to put the seal"
    file.seek(place)
    file.write(fitting)


def is_sealed(content: bytes | BinaryIO, name: str = "") -> bool:
    """Return whether `seal` made this content, or this file, under this name."""
    file = io.BytesIO(content) if isinstance(content, bytes) else content
    _, found, fitting = _inspect(file, name)
    return found == fitting


def _inspect(file: BinaryIO, name: str) -> tuple[int, bytes, bytes]:
    """Return where the first seal of a file is, the seal there, and the one that fits.

    The file is read once, in parts. Where there is no seal, an empty one is returned.
    """
    sha = hashlib.sha256(name.encode() + b"\0")
    place, found, tail = 0, b"", b""
    file.seek(0)
    while part := file.read(CHUNK):
        text = tail + part
        if not found and (match := _SEAL.search(text)):
            place, found = place + match.start(), match[0]
            text = text[: match.start()] + UNSEALED.encode() + text[match.end() :]
        keep = 0 if found else len(UNSEALED) - 1  # a seal may go on in the next part
        cut = max(0, len(text) - keep)
        sha.update(text[:cut])
        tail = text[cut:]
        place += 0 if found else cut
    sha.update(tail)
    return place, found, b"sha256:" + sha.hexdigest().encode()


@contextmanager
def sealing(path: Path, name: str = "") -> Iterator[BinaryIO]:
    """Yield a file to write, with `UNSEALED` in it, which takes its place with its seal.

    Raises:
        CembenchError: when it cannot be written.
    """
    with replacing(path) as file:
        yield file
        file.flush()
        put_seal(file, name)


def write_sealed(path: Path, content: bytes, name: str = "") -> None:
    """Write content that holds `UNSEALED`, with its seal, whole or not at all.

    Raises:
        CembenchError: when it cannot be written.
    """
    with postponed(), sealing(path, name) as file:
        file.write(content)


@contextmanager
def open_sealed(path: Path, name: str = "") -> Iterator[BinaryIO]:
    """Open a file that was written with a seal under this name.

    Raises:
        CembenchError: when it is missing, damaged, or another file.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise CembenchError(f"cannot read {path}: {error.strerror}") from error
    with file:
        if not is_sealed(file, name):
            raise CembenchError(f"{path}: damaged, or changed since it was written")
        file.seek(0)
        yield file


def header_entries(metadata: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the entries of a file's header, with room for a seal, that hold plain metadata.

    It is one entry, since safetensors writes several in random order, and files would differ. A
    `seal` among the metadata keeps its place.
    """
    if metadata is None:
        return {"seal": UNSEALED}
    return {"cembench": json.dumps({**metadata, "seal": UNSEALED})}


def header_metadata(entries: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the metadata in what `header_entries` made, without the seal; None for none."""
    if (text := entries.get("cembench")) is None:
        return None
    return {key: value for key, value in json.loads(text).items() if key != "seal"}

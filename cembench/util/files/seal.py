"""Seals: checksums inside files of any format, by which damage and mix-ups show.

Most formats read a flipped bit of a weight or a verdict as another weight or verdict. So a file
carries a seal, `sha256:` and 64 digits, anywhere in it: the digest of the file with zeros there.
It is no signature.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cembench.util.errors import CembenchError
from cembench.util.files import read_bytes, write_bytes

UNSEALED = "sha256:" + 64 * "0"
_SEAL = re.compile(rb"sha256:[0-9a-f]{64}")


def seal(content: bytes, name: str = "") -> bytes:
    """Return content with its seal in the place of the first `UNSEALED` in it.

    Args:
        content: what to write; it holds `UNSEALED`.
        name: what the file is, where another sealed file must not pass for it.
    """
    before, blank, after = content.partition(UNSEALED.encode())
    assert blank, "nowhere to put the seal"
    digits = hashlib.sha256(name.encode() + b"\0" + content).hexdigest()
    return before + b"sha256:" + digits.encode() + after


def is_sealed(content: bytes, name: str = "") -> bool:
    """Return whether `seal` made this content under this name."""
    found = _SEAL.search(content)
    if found is None:
        return False
    blank = content[: found.start()] + UNSEALED.encode() + content[found.end() :]
    return seal(blank, name) == content


def write_sealed(path: Path, content: bytes, name: str = "") -> None:
    """Write content that holds `UNSEALED`, with its seal, whole or not at all.

    Raises:
        CembenchError: when it cannot be written.
    """
    write_bytes(path, seal(content, name))


def read_sealed(path: Path, name: str = "") -> bytes:
    """Read a file that `seal` made under this name.

    Raises:
        CembenchError: when it is missing, damaged, or another file.
    """
    content = read_bytes(path)
    if not is_sealed(content, name):
        raise CembenchError(f"{path}: damaged, or changed since it was written")
    return content


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

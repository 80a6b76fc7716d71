"""Addresses of files elsewhere, and where their content lies once it was fetched.

Settings and tables keep the address, which means the same on every machine.
"""

from __future__ import annotations

import re
from pathlib import Path

_PASSWORD = re.compile(r"://[^/@\s]*@")
_places: dict[str, Path] = {}


def note(address: str, place: Path) -> None:
    """Note where the content of an address lies, for this process."""
    _places[address] = place


def place_of(text: str) -> Path:
    """Return the path that a text is; of an address that was fetched, where its content lies."""
    return _places.get(text) or Path(text)


def told(path: Path) -> str:
    """Return how the user named a path: by an address, if it was fetched or lies below what was.

    Tables and checkpoints repeat it, so it has no password.
    """
    for address, place in _places.items():
        if path.is_relative_to(place):
            return "/".join([without_password(address), *path.relative_to(place).parts])
    return str(path)


def without_password(text: str) -> str:
    """Return a text without the user names and passwords of addresses in it."""
    return _PASSWORD.sub("://…@", text)

"""Names of files and folders: of runs, rows, experiments, protocols, data sets and labels.

They come from command lines, from files of others and from checkpoints. One rule holds for all: a
name is one part of a path on every system, and can be shown in a line, a table and a cell.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from cembench.util.errors import ConfigError

LONGEST = 200  # bytes in UTF-8; files may have 255, endings and temporary neighbours take the rest
_FORBIDDEN = re.compile(r'[/\\<>:"|?*]')  # separators, and what Windows refuses in files
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # by Windows


def file_name(name: str) -> str:
    """Return a name that a file or folder can have, as it is.

    It begins with a letter, a digit or `_`, so that it is neither hidden, nor `..`, nor an option,
    nor a formula in a table.

    Raises:
        ConfigError: saying what is wrong with it.
    """
    if why := _mistake(name):
        told = shown(name[:50]) + "…" * (len(name) > 50)
        raise ConfigError.single(f"'{told}' cannot be the name of a file: {why}; choose another")
    return name


def shown(text: str, kept: str = "") -> str:
    """Return a text with escapes such as `\\x1b` in place of characters that cannot be shown.

    These are control characters, which a terminal may obey, bytes of file names that are not
    UTF-8, and marks that turn the direction of writing.

    Args:
        text: any text.
        kept: characters that stay.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in kept else repr(c)[1:-1] for c in text)


def hint(path: object) -> str:
    """Return which path was probably meant by one that is missing, for the end of a message."""
    if not isinstance(path, str | Path):
        return ""
    place = Path(path)
    while not place.parent.exists():
        place = place.parent
    try:
        close = get_close_matches(place.name, [one.name for one in place.parent.iterdir()], 1)
    except OSError:
        return ""
    return f"; did you mean {place.parent / close[0]}?" if close and not place.exists() else ""


def require_distinct(names: Iterable[str]) -> None:
    """Refuse names that are one file where case, or how accents are written, does not count.

    Raises:
        ConfigError: naming two of them.
    """
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(unicodedata.normalize("NFKC", name).casefold(), name)
        if other != name:
            what = f"'{other}' and '{name}' are the same file on some systems; rename one"
            raise ConfigError.single(what)


def _mistake(name: str) -> str:
    """Return what is wrong with a name; an empty text for nothing."""
    if not name:
        return "it is empty"
    if not name.isprintable():  # control characters, surrogates, marks that turn the direction
        return "it has characters that cannot be shown"
    if found := _FORBIDDEN.search(name):
        return f"it has '{found[0]}'"
    if not (name[0].isalnum() or name[0] == "_"):
        return "it begins with neither a letter, nor a digit, nor '_'"
    if name[-1] in " .":
        return "it ends with a blank or a dot"
    if _RESERVED.fullmatch(name):
        return "Windows keeps it for a device"
    if len(name.encode()) > LONGEST:
        return f"it is longer than {LONGEST} bytes"
    return ""

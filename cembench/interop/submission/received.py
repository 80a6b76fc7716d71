"""Entry as it was received: copied once, file by file, and only what an entry may hold.

Everything else looks at the copy, so nobody can change the entry while it is inspected. No link is
followed, and nothing is opened that is no plain file of the entry.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from cembench.interop.submission.checks import Checks, Refused
from cembench.interop.submission.entry import (
    FACTS,
    LARGEST,
    EntryFacts,
    unknown_places,
)
from cembench.util.errors import CembenchError
from cembench.util.files import CHUNK, read_bytes
from cembench.util.files.names import require_distinct, shown

MOST_FILES = 10_000
DEEPEST = 3  # folders: eval/NAME.adversarial/FILE
NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def receive(entry: Path, copy: Path, most: int, checks: Checks) -> EntryFacts:
    """Copy an entry, and return what it says of itself.

    Args:
        entry: its folder.
        copy: a new folder.
        most: bytes that its files may have together.
        checks: where the findings go.

    Raises:
        Refused: when it is no entry: links, unknown or missing files, wrong checksums, and so on.
        CembenchError: when the copy cannot be written.
    """
    with checks.stage("Form"):
        sizes = _listed(entry, checks)
        _require_bounds(sizes, most, checks)
        if checks.failed:
            raise Refused
        found = {place: _copied(entry, place, copy / place, sizes[place]) for place in sizes}
        with checks.trying("what the entry says of itself", "name, licence, contact, files"):
            facts = EntryFacts.read(read_bytes(copy / FACTS), FACTS)
            _compare(facts.files, {k: v for k, v in found.items() if k != FACTS}, checks)
            checks.require("licence", True, "an SPDX expression", facts.licence)
            checks.require("contact", True, "whom to ask", facts.contact)
    return facts


def _listed(entry: Path, checks: Checks) -> dict[str, int]:
    """Return the size of each file by its place, with `/` on every system."""
    if entry.is_symlink() or not entry.is_dir():
        raise CembenchError(f"{entry}: no folder with an entry; give one that `submit` wrote")
    sizes: dict[str, int] = {}
    strange: list[str] = []
    items = list(islice(_items(entry, ""), MOST_FILES + 1))
    for place, item in items:
        if item.is_file(follow_symlinks=False):
            sizes[place] = item.stat(follow_symlinks=False).st_size
        elif not _is_folder(place, item):
            strange.append(f"{place} ({'a link' if item.is_symlink() else 'no plain file'})")
    bound = f"{MOST_FILES:,} at most"
    checks.require("number of files and folders", len(items) <= MOST_FILES, bound, len(items))
    checks.require("kinds of files", not strange, "plain files and folders", _some(strange))
    unknown = unknown_places(sizes)
    checks.require("files", not unknown, "those of one record and its evidence", _some(unknown))
    with checks.trying("names of files", "different ones on every system"):
        require_distinct(sizes)
    checks.require(FACTS, FACTS in sizes, "there", "there" if FACTS in sizes else "missing")
    return sizes


def _items(folder: Path, above: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield what lies in a folder and below it, by its place."""
    with os.scandir(folder) as items:
        for item in items:
            place = f"{above}{item.name}"
            yield place, item
            if _is_folder(place, item):
                yield from _items(folder / item.name, f"{place}/")


def _is_folder(place: str, item: os.DirEntry[str]) -> bool:
    return item.is_dir(follow_symlinks=False) and place.count("/") < DEEPEST


def _require_bounds(sizes: dict[str, int], most: int, checks: Checks) -> None:
    total = sum(sizes.values())
    checks.require("size", total <= most, f"{most:,} bytes at most", f"{total:,} bytes")
    for place, size in sizes.items():
        bound = LARGEST.get(place) or LARGEST.get(Path(place).suffix)
        if bound is not None and size > bound:
            checks.fail(f"size of {place}", f"{bound:,} bytes at most", f"{size:,} bytes")


def _copied(entry: Path, place: str, target: Path, size: int) -> str:
    """Copy a file of the size that it was seen with, and return its SHA-256."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _opened(entry, place) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise CembenchError(f"{entry / place}: changed while it was read")
            return _copy(file, target, size)
    except OSError as error:
        raise CembenchError(f"cannot copy {entry / place}: {error.strerror}") from error


def _opened(entry: Path, place: str) -> BinaryIO:
    """Open a file, folder by folder, since one may have become a link."""
    step_by_step = os.open in os.supports_dir_fd  # not on Windows
    steps: tuple[str | Path, ...] = (entry, *place.split("/")) if step_by_step else (entry / place,)
    above: list[int] = []
    found = None
    try:
        for step in steps:
            found = os.open(step, os.O_RDONLY | NO_LINK, dir_fd=found)
            above.append(found)
        return os.fdopen(above.pop(), "rb")
    finally:
        for folder in above:
            os.close(folder)


def _copy(file: BinaryIO, target: Path, size: int) -> str:
    sha = hashlib.sha256()
    with target.open("xb") as out:
        while size > 0 and (part := file.read(min(CHUNK, size))):
            sha.update(part)
            out.write(part)
            size -= len(part)
    return sha.hexdigest()


def _compare(said: dict[str, str], found: dict[str, str], checks: Checks) -> None:
    """Compare the files that the entry lists with those that are there."""
    listed, there = [k for k in said if k not in found], [k for k in found if k not in said]
    checks.require("listed files", not listed, "all of them in the entry", _some(listed, "missing"))
    checks.require("files in the entry", not there, "all of them listed", _some(there, "unlisted"))
    other = [place for place in found if place in said and said[place] != found[place]]
    checks.require("SHA-256 of each file", not other, "as listed", _some(other, "another one of"))


def _some(names: list[str], what: str = "") -> str:
    """Return a few names, in words; that all is well for none."""
    if not names:
        return "so it is"
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return shown(f"{what} {', '.join(sorted(names)[:5])}{more}".strip())

"""Files of a run from a store: each compared with the manifest, and whole folders or none."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from cembench.interop.hub.manifest import MANIFEST, Entry
from cembench.interop.hub.store import Store
from cembench.util.display.format import byte_size
from cembench.util.errors import CembenchError
from cembench.util.files import nearest, replacing
from cembench.util.progress import stderr


def fetch(folder: Path, store: Store, files: Mapping[str, Entry]) -> None:
    """Fetch files into a folder, each whole or not at all.

    Raises:
        CembenchError: when one cannot be read, is not what the manifest says, or there is no room.
    """
    for name, entry in files.items():
        if (size := store.size(name)) is None:
            raise store.missing(name)
        if size != entry.bytes:
            what = f"{name} has {size:,} bytes, and {MANIFEST} says {entry.bytes:,}; push it again"
            raise CembenchError(f"{store.address}: {what}")
    total = sum(entry.bytes for entry in files.values())
    require_room(folder, total, store)
    with transfer(store, "fetching", total) as advance:
        for name, entry in files.items():
            _fetch(folder / name, store, name, entry)
            advance(entry.bytes)


def _fetch(place: Path, store: Store, name: str, entry: Entry) -> None:
    sha = hashlib.sha256()
    with replacing(place) as target:
        for part in store.parts(name, entry.bytes):
            sha.update(part)
            target.write(part)
        if sha.hexdigest() != entry.sha256:
            raise CembenchError(
                f"{store.address}: {name} is damaged or was changed: it has not the SHA-256 that "
                f"{MANIFEST} says"
            )


def require_room(folder: Path, size: int, store: Store) -> None:
    """Refuse to fetch more bytes than the disk of a folder has room for.

    Raises:
        CembenchError: saying how much there is.
    """
    there = nearest(folder)
    if size > (free := shutil.disk_usage(there).free):
        raise CembenchError(
            f"{store.address}: {byte_size(size)}, and {there} has room for {byte_size(free)}"
        )


@contextmanager
def transfer(store: Store, verb: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar of bytes on a terminal, unless the store shows its own; yield what advances it."""
    console = stderr()
    hidden = store.shows_progress or not console.is_interactive
    words = TextColumn("{task.description}", markup=False)
    columns = (words, BarColumn(bar_width=20), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, disable=hidden) as bar:
        task = bar.add_task(f"{verb} {store.address}", total=total)
        yield lambda size: bar.advance(task, size)

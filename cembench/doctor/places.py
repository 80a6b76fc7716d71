"""Places: the working folder and the caches, their space, locks and clock."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import NamedTemporaryFile

from cembench.doctor.finding import Finding
from cembench.util.display.format import byte_size
from cembench.util.files import nearest
from cembench.util.files.layout import user_cache

LITTLE, NONE = 2e9, 5e7  # bytes of a disk
LONG = 0.3  # seconds in which files of a cache are counted
SKEW = 3.0  # seconds between the clocks of this machine and of a file system
BUILT = 1_700_000_000  # when this program was not yet written
CLEARED = {
    "prepared": "decoded images: cembench data list, cembench data remove",
    "features": "features of real images: delete the folder",
    "data": "downloaded data sets: delete the folder",
    "pseudo-labels": "labels of a classifier: delete the folder",
}


def working_folder() -> Iterator[Finding]:
    """Tell whether runs can be written below the working folder, and locked."""
    yield from _place("working folder", Path.cwd(), "go to another folder, or give --out")


def caches() -> Iterator[Finding]:
    """Tell where caches are, how large, and how to clear them."""
    yield from _place("caches", user_cache(), "set XDG_CACHE_HOME to a folder that is writable")
    for folder in _cached():
        if folder.is_dir():
            size, whole = _size(folder)
            text = f"{'' if whole else 'more than '}{byte_size(size)} in {folder}"
            yield Finding("caches", "ok", f"{text}: {CLEARED[folder.name]}")


def _cached() -> Iterator[Path]:
    for name in CLEARED:
        yield user_cache() / name
    if (downloads := Path("~/.cache/cembench/data").expanduser()).parent != user_cache():
        yield downloads


def _place(topic: str, folder: Path, remedy: str) -> Iterator[Finding]:
    place = nearest(folder)
    free = shutil.disk_usage(place).free
    text = f"{byte_size(free)} free in {folder}"
    if free < LITTLE:
        yield Finding(topic, "problem" if free < NONE else "note", text, "free some space")
    else:
        yield Finding(topic, "ok", text)
    try:
        with NamedTemporaryFile(dir=place, prefix=".cembench-doctor-") as file:
            yield from _locks(topic, Path(file.name), remedy)
            yield from _clock(topic, os.fstat(file.fileno()).st_mtime)
    except OSError as error:
        yield Finding(topic, "problem", f"cannot write in {place}: {error.strerror}", remedy)


def _locks(topic: str, file: Path, remedy: str) -> Iterator[Finding]:
    """Tell whether a lock keeps another one out, as commands that share a folder need it."""
    from filelock import FileLock, Timeout

    first, second = (FileLock(f"{file}.lock", timeout=0, fallback_to_soft=False) for _ in range(2))
    try:
        with first:
            try:
                with second:
                    what = "locks do not exclude each other: two commands may spoil a run"
                    yield Finding(topic, "problem", what, remedy)
            except Timeout:
                yield Finding(topic, "ok", "files can be written and locked there")
    except (OSError, NotImplementedError) as error:
        yield Finding(topic, "problem", f"the file system has no locks: {error}", remedy)
    finally:
        Path(f"{file}.lock").unlink(missing_ok=True)


def _clock(topic: str, written: float) -> Iterator[Finding]:
    now = time.time()
    if now < BUILT:
        yield Finding(topic, "note", "the clock is wrong: records will be dated so", "set it")
    elif abs(now - written) > SKEW:
        text = f"its clock differs from that of this machine by {abs(now - written):.0f} s"
        yield Finding(topic, "note", text, "let both ask a time server")


def _size(folder: Path) -> tuple[int, bool]:
    """Return the bytes below a folder, and whether all files were counted in time."""
    total, end = 0, time.monotonic() + LONG
    for place, _, names in os.walk(folder):
        for name in names:
            if time.monotonic() > end:
                return total, False
            total += os.lstat(Path(place, name)).st_size
    return total, True

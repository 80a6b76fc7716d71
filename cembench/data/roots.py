"""Data roots: the folders that a checkpoint may have read, since its user named them.

A checkpoint says where its images lie, and may come from anyone; the images of a folder end up in
pictures and samples. So the folders that a user named, in a training, an import or with
`--data-root`, are remembered, and others are only read where they lie within reach.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cembench.data import DataSettings
from cembench.util.errors import CembenchError
from cembench.util.files.layout import user_cache

_named: set[str] = set()  # in this process, whether or not it can be kept
_told: set[Path] = set()
_near_is_read = True


def remember(data: DataSettings) -> None:
    """Remember the folders of a data set that the user named, for later commands too."""
    for member in data.members:
        for folder in member.named_folders:
            _remember(str(folder))


def remember_root(data: DataSettings) -> None:
    """Remember the folder of images that the user named for a data set of somebody else.

    Its other folders, such as that of a network that gives labels, nobody has named.
    """
    if data.image_folder is not None:
        _remember(str(data.image_folder))


def _remember(line: str) -> None:
    if line in _all_named():
        return
    _named.add(line)
    with suppress(OSError, UnicodeError):  # then later commands ask again
        _memory().parent.mkdir(parents=True, exist_ok=True)
        with _memory().open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")


@contextmanager
def named_alone() -> Iterator[None]:
    """Refuse every folder that the user never named, also within reach: for files of strangers."""
    global _near_is_read
    before, _near_is_read = _near_is_read, False
    try:
        yield
    finally:
        _near_is_read = before


def require_named(data: DataSettings, checkpoint: Path, option: str = "--data-root ") -> None:
    """Refuse to read folders that only a checkpoint names.

    Folders in the working folder, and beside the checkpoint, are read, with a line on stderr.

    Args:
        data: what the checkpoint says of its data.
        checkpoint: the file.
        option: what names the folder of a data set, or of the first part of a mix, in the command
            that reads it; empty where none does.

    Raises:
        CembenchError: naming the folder and the option with which to name it.
    """
    for number, member in enumerate(data.members):
        for folder in member.named_folders:
            by_option = option and number == 0 and folder == member.image_folder
            here = folder if folder == member.image_folder else folder.parent
            remedy = f"give {option}{folder}" if by_option else f"start cembench in {here}"
            what = "images lie in" if folder == member.image_folder else "labels come from"
            _require_named(folder, checkpoint, what, remedy)


def _require_named(folder: Path, checkpoint: Path, what: str, remedy: str) -> None:
    if str(folder) in _all_named():
        return
    near = (Path(), checkpoint.parent) if _near_is_read else ()
    if not any(folder.is_relative_to(place.resolve()) for place in near):
        where = ", outside the working folder" if _near_is_read else ""
        raise CembenchError(
            f"{checkpoint}: says that its {what} {folder}{where}, "
            f"which you never named; if they are yours to use here, {remedy}"
        )
    if folder not in _told and os.environ.get("RANK", "0") == "0":
        _told.add(folder)
        kind = what.split()[0]
        print(f"cembench: reading {kind} from {folder}, as {checkpoint} says", file=sys.stderr)


def _all_named() -> set[str]:
    """Return the folders that were named in this process and before."""
    try:
        return _named | set(_memory().read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeError):
        return _named


def _memory() -> Path:
    return user_cache() / "data-roots"

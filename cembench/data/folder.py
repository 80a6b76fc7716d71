"""Class folders of images, as torchvision's ImageFolder wants them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from cembench.data.image_files import LocalData
from cembench.data.labels import UNLABELLED
from cembench.util.errors import CembenchError
from cembench.util.lazy import lazy_imports

with lazy_imports():
    from cembench.data.files.source import FileSource, Source

ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


class Folder(LocalData):
    """`root/train/CLASS/*.png` and `root/test/CLASS/*.png`, as torchvision's ImageFolder wants.

    Where there is no folder `test`, `val` is the test split.
    """

    name: ClassVar[str] = "folder"

    def source(self, root: Path, split: str) -> Source:
        """Return the images of a split."""
        if split == "test" and not (root / "test").is_dir() and (root / "val").is_dir():
            split = "val"
        return class_folders(root, split, _folders(root / "train"))

    def unlabelled(self, root: Path, split: str) -> Source:
        """Return the images in `root/split` and below, wherever they are."""
        names = _images(root / split)
        if not names:
            raise CembenchError(f"no images in {root / split}; they end in {', '.join(ENDINGS)}")
        return FileSource.of(root, UNLABELLED, ((f"{split}/{name}", 0) for name in names))


def class_folders(root: Path, split: str, classes: tuple[str, ...]) -> FileSource:
    """Return the images in `root/split/CLASS` and below, in ImageFolder's order.

    ImageFolder itself holds half a gigabyte for the names of a million files.

    Args:
        root: the folder of the data set.
        split: the name of the folder with the class folders.
        classes: names that class folders may have, in label order.

    Raises:
        CembenchError: for a class folder of another name, or one without images.
    """
    found = _folders(root / split)
    if not found:
        raise CembenchError(f"no class folders in {root / split}")
    if unknown := set(found) - set(classes):
        raise CembenchError(f"class '{sorted(unknown)[0]}' is not among the training classes")
    return FileSource.of(root, classes, _entries(root, split, found, classes))


def _folders(path: Path) -> tuple[str, ...]:
    return tuple(sorted(entry.name for entry in path.glob("*") if entry.is_dir()))


def _entries(
    root: Path, split: str, found: tuple[str, ...], classes: tuple[str, ...]
) -> Iterator[tuple[str, int]]:
    for name in found:
        images = _images(root / split / name)
        if not images:
            raise CembenchError(
                f"no images in {root / split / name}; they end in {', '.join(ENDINGS)}"
            )
        label = classes.index(name)
        yield from ((f"{split}/{name}/{image}", label) for image in images)


def _images(folder: Path) -> list[str]:
    """Return the names of all images in a folder and below it."""
    found = []
    for where, names in sorted(_files(folder)):
        below = os.path.relpath(where, folder)
        inside = "" if below == "." else f"{below}/"
        found += [inside + name for name in sorted(names) if name.lower().endswith(ENDINGS)]
    return found


def _files(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield a folder and those below it, with the names of their files; links are followed."""
    for where, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        for link in (Path(where, name) for name in folders):
            real = link.resolve() if link.is_symlink() else None
            if real is not None and any(real == above.resolve() for above in link.parents):
                raise CembenchError(f"{link} is a link to a folder that it is in; remove it")
        yield where, names


def _refuse(error: OSError) -> None:
    raise CembenchError(f"{error.filename} cannot be read: {error.strerror}") from error

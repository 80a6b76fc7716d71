"""Sizes of data sets, without a download and without decoding their images."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from cembench.data import DataSettings
from cembench.data.image_files import LocalData
from cembench.util.errors import CembenchError


class Images(NamedTuple):
    """What is known of a data set without reading all of it.

    Attributes:
        training: number of training images of its first part, those held out among them.
        test: number of test images.
        shape: channels, height and width.
        classes: number of classes.
    """

    training: int
    test: int
    shape: tuple[int, int, int]
    classes: int


KNOWN = {
    "digits": Images(1200, 597, (1, 8, 8), 10),
    "mnist": Images(60_000, 10_000, (1, 28, 28), 10),
    "fashion-mnist": Images(60_000, 10_000, (1, 28, 28), 10),
    "cifar10": Images(50_000, 10_000, (3, 32, 32), 10),
    "cifar100": Images(50_000, 10_000, (3, 32, 32), 100),
    "svhn": Images(73_257, 26_032, (3, 32, 32), 10),
}


def images_of(data: DataSettings) -> Images:
    """Return the sizes of a data set; of a mix those of its first part, which count.

    Raises:
        CembenchError: when a folder of images is missing or holds none.
    """
    first = data.members[0]
    if first.name in KNOWN:
        return KNOWN[first.name]
    if isinstance(first, LocalData):
        return _local(first)
    train, test = first.load("train"), first.load("test")
    return Images(len(train), len(test), train.shape, len(train.classes))


def _local(data: LocalData) -> Images:
    """Read the names of the files, and decode one image."""
    root = Path(data.root).expanduser()
    if not root.is_dir():
        raise CembenchError(f"data.root: no folder {root}; set data.root to where the data is")
    test = data.reader(root, "test")
    return Images(len(data.reader(root, "train")), len(test), test.shape, len(test.source.classes))

"""Data of a call: a data set by name, or images that the program has in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from cembench.data import DataSettings, datasets
from cembench.data.in_memory import InMemoryData
from cembench.models.metadata import CheckpointMetadata
from cembench.util.errors import CembenchError


def dataset(
    train: Any = None,
    test: Any = None,
    *,
    classes: Sequence[str] | None = None,
    alias: str | None = None,
    levels: int = 255,
    memory_limit: float = 1.0,
    crop: int = 0,
    flip: bool = False,
) -> InMemoryData:
    """Make a data set of images in memory, for `data` of all functions.

    Images and labels may be a pair of arrays or tensors, a `torch.utils.data.Dataset` of (image,
    label), a `DataLoader`, or a data set of Hugging Face. They are read once, in their order: a
    random augmentation in them is frozen. Images are N×C×H×W or N×H×W×C: integers in 0..255, or
    floats in [0, 1], which are kept as bytes. The record says how much that changed.

    Args:
        train: training images, for training, initial images and comparisons with samples. The name
            of a data set stands for its training images.
        test: test images, which are attacked.
        classes: class names in label order; those that the data says, or numbers, unless given.
        alias: the name in results; `memory-` and a part of the SHA-256 unless given.
        levels: the integer that stands for 1.0, for images of other depth.
        memory_limit: GiB of images of a split, at most, that are kept in memory; more go into a
            temporary file in the user's cache.
        crop: pixels of zero padding before a random crop in training.
        flip: mirror training images left to right at random.

    Raises:
        CembenchError: for what holds no images, and for other pixels, shapes and labels.

    Examples:
        >>> import numpy as np
        >>> x, y = np.zeros((20, 8, 8, 3), np.uint8), np.arange(20) % 4
        >>> own = dataset(test=(x, y), classes=["elm", "fir", "oak", "yew"], alias="trees")
        >>> own.title, own.load("test").shape
        ('trees', (3, 8, 8))
    """
    return InMemoryData.of(
        train,
        test,
        classes=classes,
        alias=alias,
        levels=levels,
        memory_limit=memory_limit,
        crop=crop,
        flip=flip,
    )


def parse_data(data: Any, split: Literal["train", "test"], train: Any = None) -> DataSettings:
    """Return the data set of a call.

    Args:
        data: its name or settings; or images in memory.
        split: what these images are.
        train: training images beside them.

    Raises:
        CembenchError: when it is none.
    """
    if not (isinstance(data, str | DataSettings) or type(data) is dict):
        if train is not None:
            return dataset(_training(train), data)
        return dataset(**{split: data})
    if train is not None:
        raise CembenchError(
            "train: goes with test images from memory; other data sets have training images of "
            "their own, and cembench.dataset(train=…, test=…) takes both"
        )
    return datasets.parse(data)


def _training(train: Any) -> Any:
    return datasets.parse(train) if isinstance(train, str) else train


def fitted(data: DataSettings, metadata: CheckpointMetadata) -> DataSettings:
    """Return a data set for a known network: images in memory take over names that they lack."""
    if not isinstance(data, InMemoryData):
        return data
    known = metadata.data
    return data.fitted(metadata.classes, known.title if isinstance(known, InMemoryData) else "")

"""Data of a call: a data set by name, or images that the program has in memory."""

from __future__ import annotations

from typing import Any, Literal

from cembench.data import DataSettings, datasets
from cembench.data.in_memory import InMemoryData, dataset
from cembench.models.metadata import CheckpointMetadata
from cembench.util.errors import CembenchError


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

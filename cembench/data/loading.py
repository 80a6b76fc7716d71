"""Loading of a data set: its test images, and its training images without those held out.

The experiments of a suite load and fingerprint each of them once.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

from cembench.data import DataSettings
from cembench.data.split import Split, hold_out
from cembench.util.files import digest
from cembench.util.shared import shared
from cembench.util.stages import stage


class TrainingData(NamedTuple):
    """The training split of a data set.

    Attributes:
        training: images to train on.
        held: images held out for validation.
        fingerprint: of both together, in the order of the data set.
    """

    training: Split
    held: Split
    fingerprint: str


def load_training(data: DataSettings, held: float) -> TrainingData:
    """Load the training split, and hold out a fraction of it.

    Raises:
        CembenchError: when it cannot be read, or one of the two parts would be empty.
    """

    def load() -> TrainingData:
        with stage("data"):
            whole = data.load("train")
            return TrainingData(*hold_out(whole, held), whole.fingerprint)

    return shared("training split", lambda: (_key(data), held), load)


def load_test(data: DataSettings) -> Split:
    """Load the test split.

    Raises:
        CembenchError: when it cannot be read.
    """

    def load() -> Split:
        with stage("data"):
            return data.load("test")

    return shared("test split", lambda: _key(data), load)


def _key(data: DataSettings) -> Hashable:
    return type(data), digest(data.dump())

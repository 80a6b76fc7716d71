"""Loading of a data set: its test images, and its training images without those held out.

The experiments of a suite load and fingerprint each of them once.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace

from cembench.data import DataSettings
from cembench.data.split import Split, fixed_permutation, hold_out
from cembench.data.store.joined import Joined
from cembench.data.store.memory import MemoryStore
from cembench.util.files import digest
from cembench.util.shared import shared
from cembench.util.stages import stage


@dataclass(frozen=True)
class TrainingData:
    """The training split of a data set.

    Attributes:
        training: images to train on.
        held: images held out for validation.
        whole: both together, in the order of the data set; a view of them.
    """

    training: Split
    held: Split
    whole: Split

    @property
    def fingerprint(self) -> str:
        """That of all images, made when it is first asked for."""
        with stage("data"):
            return self.whole.fingerprint


def load_training(data: DataSettings, held: float) -> TrainingData:
    """Load the training split, and hold out a fraction of it.

    Raises:
        CembenchError: when it cannot be read, or one of the two parts would be empty.
    """

    def load() -> TrainingData:
        with stage("data"):
            whole = data.load("train")
            training, validation = hold_out(whole, held)
            return TrainingData(training, validation, _view(whole, training, validation))

    return shared("training split", lambda: (_key(data), held), load)


def _view(whole: Split, training: Split, held: Split) -> Split:
    """Return the whole split without a copy of images that lie in its two parts already."""
    if not isinstance(whole.store, MemoryStore):
        return whole
    rows = fixed_permutation(len(whole)).argsort()
    return replace(whole, store=Joined([held.store, training.store]).chosen(rows))


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

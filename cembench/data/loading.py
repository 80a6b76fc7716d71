"""Loading of a data set: its test images, and its training images without those held out.

The experiments of a suite load and fingerprint each of them once.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from functools import cached_property

from cembench.data import DataSettings
from cembench.data.split import Split, fixed_permutation, hold_out, joined
from cembench.data.store.joined import Joined
from cembench.data.store.memory import MemoryStore
from cembench.util.files import digest
from cembench.util.shared import shared
from cembench.util.stages import stage


@dataclass(frozen=True)
class TrainingData:
    """The training images of a data set, without those held out for validation.

    Attributes:
        data: its settings.
        parts: images to train on, of each part; a data set that is no mix has one.
        held: images held out for validation, of the first part.
        wholes: the images of each part in the order of the data set; views of those above.
    """

    data: DataSettings
    parts: tuple[Split, ...]
    held: Split
    wholes: tuple[Split, ...]

    @cached_property
    def training(self) -> Split:
        """Images to train on, one part after the other."""
        return joined(self.parts)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Images to train on in each part."""
        return tuple(map(len, self.parts))

    @property
    def shares(self) -> tuple[float, ...]:
        """Share of each part in every batch."""
        return self.data.shares(self.sizes)

    @cached_property
    def fingerprint(self) -> str:
        """That of all images, made when it is first asked for."""
        with stage("data"):
            return self.data.fingerprint_of(self.wholes)


def load_training(data: DataSettings, held: float) -> TrainingData:
    """Load the training split, and hold out a fraction of it, or of the first part of a mix.

    Raises:
        CembenchError: when it cannot be read, or one of the two parts would be empty.
    """

    def load() -> TrainingData:
        with stage("data"):
            first, *others = data.load_parts()
            training, validation = hold_out(first, held)
            wholes = (_view(first, training, validation), *others)
            return TrainingData(data, (training, *others), validation, wholes)

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

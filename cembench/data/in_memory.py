"""Data in memory: images that a Python program has, under the settings of a data set."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, PrivateAttr

from cembench.data import DataSettings, own_name
from cembench.util.errors import CembenchError, blaming
from cembench.util.lazy import lazy_imports
from cembench.util.settings import Name

with lazy_imports():
    from cembench.data.objects import Reading, numbered, read
    from cembench.data.split import Split

log = logging.getLogger("cembench")

Sha256 = Annotated[str, Field(max_length=64)]
SHOWN = 8  # digits of a fingerprint in the name of a data set without one


class Held:
    """The images behind the settings, which are no part of them: not compared, copied or written.

    Attributes:
        readings: what was read, by the name of the split.
        aliased: whether the name was given.
    """

    def __init__(self, readings: dict[str, Reading] | None = None, aliased: bool = False) -> None:
        self.readings, self.aliased = readings or {}, aliased

    def __deepcopy__(self, memo: object) -> Held:
        return self


class InMemoryData(DataSettings):
    """Images that a Python program has in memory: `cb.evaluate(network, (x, y))`, `cb.dataset`.

    A file cannot name them. A checkpoint that was trained on them says what they were, and is
    evaluated in Python, where they are given again.

    Attributes:
        alias: the name of the data set in results; `memory-` and the first digits of a fingerprint
            unless given.
        train: SHA-256 of the training images; empty where there are none.
        test: SHA-256 of the test images; empty where there are none.
    """

    name: ClassVar[str] = "memory"
    alias: Annotated[Name, AfterValidator(own_name)] = "memory"
    train: Sha256 = ""
    test: Sha256 = ""

    _held: Held = PrivateAttr(default_factory=lambda: Held())

    @classmethod
    def holding(
        cls, readings: dict[str, Reading], alias: str | None, settings: dict[str, Any]
    ) -> Self:
        """Return the settings of images that were read, by the name of their split."""
        known = {key: reading.split.fingerprint for key, reading in readings.items()}
        shown = f"memory-{known.get('test', known.get('train', ''))[:SHOWN]}"
        with blaming("data"):
            found = cls.parse({**settings, "alias": alias or shown, **known})
        found._held = Held(readings, alias is not None)
        return found

    @property
    def title(self) -> str:
        """The alias."""
        return self.alias

    @property
    def has_training(self) -> bool:
        """Whether training images were given."""
        return "train" in self._held.readings

    @property
    def cautions(self) -> tuple[str, ...]:
        """The rounding of float images to bytes, if it changed any."""
        return tuple(
            f"{_word(key)} data: pixels are no multiples of 1/{reading.split.levels}; they were "
            f"rounded, by at most {reading.rounding:.2g} (cembench.dataset takes other levels)"
            for key, reading in self._held.readings.items()
            if reading.rounding
        )

    def load(self, split: Literal["train", "test"]) -> Split:
        """Return the images of a split.

        Raises:
            CembenchError: when they were not given.
        """
        readings = self._held.readings
        if not readings:
            raise CembenchError(
                f"data: the images of '{self.title}' were in the memory of a Python program; give "
                "them again, in Python, as data=(images, labels)"
            )
        if split not in readings:
            raise CembenchError(f"'{self.title}' has no {_word(split)} images; give them too")
        return readings[split].split

    def fitted(self, classes: Sequence[str] | int, alias: str = "") -> Self:
        """Return the same images, for a network that is known.

        Args:
            classes: its class names, or how many it tells apart; taken over where the images come
                without names.
            alias: the name of its data set; taken over where none was given.
        """
        names = numbered(classes) if isinstance(classes, int) else classes
        held = self._held
        readings = {
            key: reading if reading.named else reading.renamed(names)
            for key, reading in held.readings.items()
        }
        given = self.alias if held.aliased else alias
        return self.holding(readings, given or None, {"crop": self.crop, "flip": self.flip})


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
    readings = {
        key: _read(key, value, classes, levels, memory_limit * 2**30)
        for key, value in (("train", train), ("test", test))
        if value is not None
    }
    if not readings:
        raise CembenchError("data: give images, as train or as test")
    found = InMemoryData.holding(_alike(readings), alias, {"crop": crop, "flip": flip})
    for caution in found.cautions:
        log.warning(caution)
    return found


def _word(split: str) -> str:
    return "training" if split == "train" else split


def _read(key: str, data: Any, classes: Sequence[str] | None, levels: int, limit: float) -> Reading:
    if isinstance(data, DataSettings):
        data = data.load("train" if key == "train" else "test")
    try:
        return read(data, classes, levels, limit)
    except CembenchError as error:
        raise CembenchError(f"{_word(key)} data: {error}") from error


def _alike(readings: dict[str, Reading]) -> dict[str, Reading]:
    """Return the splits with the same class names, after comparing their shapes."""
    shapes = {key: reading.split.shape for key, reading in readings.items()}
    if len({*shapes.values()}) > 1:
        raise CembenchError(
            f"training data has images of {shapes['train']}, test data of {shapes['test']}"
        )
    named = [reading.split.classes for reading in readings.values() if reading.named]
    if len({*named}) > 1:
        raise CembenchError(f"training data has the classes {named[0]}, test data {named[1]}")
    every = named or [reading.split.classes for reading in readings.values()]
    names = max(every, key=len)
    return {
        key: Reading(reading.renamed(names).split, bool(named), reading.rounding)
        for key, reading in readings.items()
    }

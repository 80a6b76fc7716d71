"""Data sets by name. Each is a settings class; `load` returns a split."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from cembench.energy.threat import Threat
from cembench.util.errors import CembenchError, ConfigError
from cembench.util.registry import Registry
from cembench.util.settings import Choice, Fraction, optional_field

if TYPE_CHECKING:
    from cembench.data.split import Split

HELD_OUT = 0.1  # fraction of the training images for validation, unless a config says otherwise


def require_one_crop(crop: int | None, resized_crop: float | None) -> None:
    """Refuse two kinds of crops at once.

    Raises:
        ConfigError: naming the key.
    """
    if crop and resized_crop:
        raise ConfigError.single("crops in another way; set crop to 0", "resized_crop")


class DataSettings(Choice):
    """A data set: where it is, and how its training images are augmented.

    Attributes:
        crop: pixels of zero padding before a random crop of the original size; 0 for none.
        flip: whether to mirror images left to right at random.
        resized_crop: the smallest share of an image's area that a random-resized crop takes, 0.08
            for ImageNet; 0 for no such crops. Each takes a box with sides of 3:4 to 4:3 and scales
            it to the size of the image.
    """

    crop: Annotated[int, Field(ge=0, le=1024)] = 0
    flip: bool = False
    resized_crop: Fraction = optional_field(0.0)

    @model_validator(mode="after")
    def _one_crop(self) -> Self:
        require_one_crop(self.crop, self.resized_crop)
        return self

    @property
    def title(self) -> str:
        """The name of the data set in results."""
        return self.name

    @property
    def threat(self) -> Threat:
        """The customary threat model, used when a config gives none."""
        return Threat(norm="linf", eps=8 / 255)

    @property
    def has_training(self) -> bool:
        """Whether it has training images; only images in memory may come without."""
        return True

    @property
    def cautions(self) -> tuple[str, ...]:
        """What a record warns of these images."""
        return ()

    def moved(self, root: str | None) -> Self:
        """Return the same data set under another root; itself for None.

        Raises:
            CembenchError: for a data set without a root.
        """
        if root is None:
            return self
        if "root" not in type(self).model_fields:
            raise CembenchError(f"data set '{self.name}' has no root to replace")
        return self.model_copy(update={"root": root})

    @property
    def image_folder(self) -> Path | None:
        """The folder whose images are taken whatever they show, if the data set has a `root`.

        A data set that recognises its files, by names and checksums, has none.
        """
        root = getattr(self, "root", None)
        return Path(root).expanduser().resolve() if isinstance(root, str) else None

    def example_split(self) -> Split:
        """Return the training split, or the test split where there is no other."""
        return self.load("train" if self.has_training else "test")

    @property
    def named_folders(self) -> tuple[Path, ...]:
        """All folders and files that it reads because its settings name them."""
        return () if self.image_folder is None else (self.image_folder,)

    def resolved(self) -> Self:
        """Return the same data set with everything that identifies it, which settings may lack.

        Raises:
            CembenchError: when something that it needs cannot be read.
        """
        return self

    @property
    def members(self) -> tuple[DataSettings, ...]:
        """The data sets that it consists of: itself, unless it is a mix."""
        return (self,)

    def shares(self, sizes: Sequence[int]) -> tuple[float, ...]:
        """Return the share of each member in every batch, of which there are so many images."""
        return (1.0,)

    def load_parts(self) -> list[Split]:
        """Read the training split of each member.

        Raises:
            CembenchError: as `load`.
        """
        return [self.load("train")]

    def fingerprint_of(self, parts: Sequence[Split]) -> str:
        """Return the fingerprint of the training images, given those of each member."""
        return parts[0].fingerprint

    @abstractmethod
    def load(self, split: Literal["train", "test"]) -> Split:
        """Return one split.

        Raises:
            CembenchError: when files are missing, damaged or do not fit together.
        """

    def prepare(self, split: Literal["train", "test"], verify: bool) -> Split:
        """Return one split, as `load` does.

        Args:
            split: which one.
            verify: whether to read all that was kept of it on disk, and to compare checksums.

        Raises:
            CembenchError: as `load` does.
        """
        return self.load(split)


datasets: Registry[DataSettings] = Registry(
    "data set",
    DataSettings,
    {
        "digits": "cembench.data.digits:Digits",
        "mnist": "cembench.data.torchvision:MNIST",
        "fashion-mnist": "cembench.data.torchvision:FashionMNIST",
        "cifar10": "cembench.data.torchvision:CIFAR10",
        "cifar100": "cembench.data.torchvision:CIFAR100",
        "svhn": "cembench.data.torchvision:SVHN",
        "imagenet": "cembench.data.imagenet:ImageNet",
        "folder": "cembench.data.folder:Folder",
        "parquet": "cembench.data.parquet:Parquet",
        "memory": "cembench.data.in_memory:InMemoryData",
        "mix": "cembench.data.mix:Mix",
    },
)


def own_name(alias: str) -> str:
    """Return the name of a data set of one's own, which is ranked under it.

    Raises:
        ValueError: for the name of a data set of cembench.
    """
    if alias in datasets.names():
        raise ValueError(f"'{alias}' is a data set of cembench; choose another")
    return alias

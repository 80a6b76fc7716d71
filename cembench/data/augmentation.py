"""Augmentation of one branch of a training step: settings, and their use."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from cembench.data import DataSettings, require_one_crop
from cembench.util.lazy import lazy_imports
from cembench.util.settings import Fraction, Settings

with lazy_imports():
    import torch
    from torch import Tensor

    from cembench.data.augment import augment, autoaugmented, cut_out

Pixels = Annotated[int, Field(ge=0, le=1024)]


class Augment(Settings):
    """How the images of a branch are augmented; what is not given is as the data set says.

    Attributes:
        crop: pixels of zero padding before a random crop of the original size.
        flip: whether to mirror images left to right at random.
        resized_crop: the smallest share of an image's area that a random-resized crop takes.
        autoaugment: whether AutoAugment's policy for CIFAR-10 (arXiv 1805.09501) is applied.
        cutout: side in pixels of a square that is set to zero at a random place (arXiv 1708.04552);
            0 for none.
    """

    crop: Pixels | None = None
    flip: bool | None = None
    resized_crop: Fraction | None = None
    autoaugment: bool = False
    cutout: Pixels = 0

    @model_validator(mode="after")
    def _one_crop(self) -> Self:
        require_one_crop(self.crop, self.resized_crop)
        return self

    def over(self, data: DataSettings) -> Augment:
        """Return the same with the values of a data set where none are given."""
        crop, area = self.crop, self.resized_crop
        if crop is None:
            crop = 0 if area else data.crop
        if area is None:
            area = 0.0 if crop else data.resized_crop
        flip = data.flip if self.flip is None else self.flip
        return self.model_copy(update={"crop": crop, "flip": flip, "resized_crop": area})

    def apply(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return augmented images.

        Args:
            images: uint8, N×C×H×W; with AutoAugment, 255 is white.
            generator: the source of randomness, on their device.
        """
        area = self.resized_crop or 0.0
        images = augment(images, self.crop or 0, bool(self.flip), generator, area)
        if self.autoaugment:
            images = autoaugmented(images, generator)
        return cut_out(images, self.cutout, generator) if self.cutout else images

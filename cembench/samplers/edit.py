"""Edits: what a network makes of real images. Counterfactuals, inpainting, denoising."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from cembench.util.lazy import lazy_imports
from cembench.util.settings import Settings

with lazy_imports():
    import torch
    from torch import Tensor, nn

    from cembench.samplers.edited import Edited


class Edit(Settings, ABC):
    """Change of real images that a network makes.

    Attributes:
        title: what the images are, in messages.
        result: one such image, in pictures.
        avoids_target: whether images that are of the target class already are left out.
    """

    title: ClassVar[str]
    result: ClassVar[str]
    avoids_target: ClassVar[bool] = False

    @abstractmethod
    def apply(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        target: Tensor | None,
        generator: torch.Generator,
    ) -> Edited:
        """Return edited images.

        Args:
            model: a frozen network, images in [0, 1] to N×K logits.
            x: images, N×C×H×W.
            y: their classes, N.
            target: the classes to approach, N; as the edit chooses unless given.
            generator: source of randomness, on the device of the images.
        """

    @abstractmethod
    def figures(self, edited: Edited) -> dict[str, Tensor]:
        """Return figures of each image, N values by name."""

    @abstractmethod
    def summary(self, figures: Mapping[str, Tensor]) -> dict[str, float]:
        """Return what the figures of all images say together."""

    @abstractmethod
    def lines(self, summary: Mapping[str, float]) -> list[str]:
        """Return the summary as text."""

    def before(self, edited: Edited) -> dict[str, Tensor]:
        """Return what a picture shows before the result, by title: images in [0, 1]."""
        return {"original": edited.originals}

    def after(self, edited: Edited) -> dict[str, Tensor]:
        """Return what a picture of one network shows below the result."""
        return {}

"""Small convolutional network for 8×8 to 32×32 images, which trains in seconds on a CPU."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from cembench.models import Activation, ModelSettings, Norm, Shape
from cembench.util.lazy import lazy_imports

with lazy_imports():
    from torch import nn

    from cembench.models.networks import SmallNet


class SmallCNN(ModelSettings):
    """Four 3×3 convolutions, two of them strided, and one linear layer.

    Attributes:
        width: channels of the first convolution; the last has four times as many.
        activation: activation after each convolution.
        norm: normalisation after each convolution: `batch`, `dual` (one batch norm for clean images
            and one for attacked ones), `group` or `none`.
    """

    name: ClassVar[str] = "small_cnn"
    width: Annotated[int, Field(ge=1, le=1024)] = 32
    activation: Activation = "relu"
    norm: Norm = "batch"

    def build(self, shape: Shape, classes: int) -> nn.Module:
        """Build the network."""
        return SmallNet(shape, classes, self.width, self.norm, self.activation)

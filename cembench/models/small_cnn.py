"""Small convolutional network for 8×8 to 32×32 images, which trains in seconds on a CPU."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field
from torch import nn

from cembench.models import Activation, ModelSettings, Norm, Shape
from cembench.models.blocks import Network, activation, norm


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
        return SmallNet(self, shape, classes)


class SmallNet(Network):
    """The network of `SmallCNN`, with 16·width features."""

    def __init__(self, settings: SmallCNN, shape: Shape, classes: int) -> None:
        super().__init__()
        channels, *size = shape
        layers: list[nn.Module] = []
        for factor, stride in ((1, 1), (2, 2), (2, 1), (4, 2)):
            width = factor * settings.width
            layers += [
                nn.Conv2d(channels, width, 3, stride, padding=1, bias=settings.norm == "none"),
                norm(settings.norm, width),
                activation(settings.activation),
            ]
            channels = width
        # Pooling the 2×2 maps of 8×8 images changes nothing, and costs a tenth of a step.
        pool = nn.Identity() if all(-(-side // 4) == 2 for side in size) else nn.AdaptiveAvgPool2d(2)
        self.body = nn.Sequential(*layers, pool, nn.Flatten())
        self.head = nn.Linear(4 * channels, classes)

"""Residual networks for small images, with a 3×3 stem.

ResNet: He et al., arXiv 1512.03385. Pre-activation: arXiv 1603.05027. Wide: Zagoruyko and
Komodakis, arXiv 1605.07146.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from cembench.models import Activation, ModelSettings, Norm, Shape
from cembench.util.errors import ModelError
from cembench.util.lazy import lazy_imports

with lazy_imports():
    from torch import nn

    from cembench.models.networks import ResNet


class ResidualSettings(ModelSettings):
    """Residual network.

    Attributes:
        activation: activation of all blocks.
        norm: normalisation: `batch`, `dual` (one batch norm for clean images and one for attacked
            ones), `group` or `none`.
    """

    activation: Activation = "relu"
    norm: Norm = "batch"


class ResNet18(ResidualSettings):
    """ResNet-18 for small images, 11.2 million parameters at width 64.

    Attributes:
        width: channels of the first stage; the last has eight times as many.
    """

    name: ClassVar[str] = "resnet18"
    pre_activation: ClassVar[bool] = False
    width: Annotated[int, Field(ge=1, le=1024)] = 64

    def build(self, shape: Shape, classes: int) -> nn.Module:
        """Build the network."""
        widths = [self.width * factor for factor in (1, 2, 4, 8)]
        layers = self.norm, self.activation
        return ResNet(self.pre_activation, shape[0], self.width, widths, 2, classes, *layers)


class PreActResNet18(ResNet18):
    """ResNet-18 with pre-activation blocks, the usual network of adversarial training."""

    name: ClassVar[str] = "preact_resnet18"
    pre_activation: ClassVar[bool] = True


class WideResNet(ResidualSettings):
    """WRN-depth-width; JEM's is depth 28, width 10, norm none.

    Attributes:
        depth: convolutional layers: 10, 16, 22, 28, ….
        width: the factor of the 16, 32 and 64 channels of its stages.
    """

    name: ClassVar[str] = "wide_resnet"
    depth: Annotated[int, Field(ge=10, le=1000)] = 28
    width: Annotated[int, Field(ge=1, le=100)] = 10

    def build(self, shape: Shape, classes: int) -> nn.Module:
        """Build the network."""
        blocks, rest = divmod(self.depth - 4, 6)
        if rest:
            raise ModelError(
                f"model.depth={self.depth}: wide ResNets have 10, 16, 22, 28, … layers"
            )
        widths = [self.width * base for base in (16, 32, 64)]
        layers = self.norm, self.activation
        return ResNet(True, shape[0], 16, widths, blocks, classes, *layers)

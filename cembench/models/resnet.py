"""Residual networks for small images, with a 3×3 stem.

ResNet: He et al., arXiv 1512.03385. Pre-activation: arXiv 1603.05027. Wide: Zagoruyko and
Komodakis, arXiv 1605.07146.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor, nn

from cembench.models import Activation, ModelSettings, Norm, Shape
from cembench.models.blocks import Network, activation, norm
from cembench.util.errors import ModelError


class ResidualSettings(ModelSettings):
    """Residual network.

    Attributes:
        activation: activation of all blocks.
        norm: normalisation: `batch`, `dual` (one batch norm for clean images and one for attacked
            ones), `group` or `none`.
    """

    activation: Activation = "relu"
    norm: Norm = "batch"


def _conv(channels: int, width: int, size: int, stride: int, bias: bool) -> nn.Conv2d:
    return nn.Conv2d(channels, width, size, stride, padding=size // 2, bias=bias)


class Basic(nn.Module):
    """Residual block: two convolutions, each followed by its normalisation, plus the shortcut."""

    def __init__(self, channels: int, width: int, stride: int, settings: ResidualSettings) -> None:
        super().__init__()
        bias = settings.norm == "none"
        self.body = nn.Sequential(
            _conv(channels, width, 3, stride, bias),
            norm(settings.norm, width),
            activation(settings.activation),
            _conv(width, width, 3, 1, bias),
            norm(settings.norm, width),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != width:
            self.shortcut = nn.Sequential(
                _conv(channels, width, 1, stride, bias), norm(settings.norm, width)
            )
        self.act = activation(settings.activation)

    def forward(self, x: Tensor) -> Tensor:
        """Return the activated sum."""
        return self.act(self.body(x) + self.shortcut(x))


class PreAct(nn.Module):
    """Pre-activation block: two convolutions, each after its normalisation, plus the shortcut."""

    def __init__(self, channels: int, width: int, stride: int, settings: ResidualSettings) -> None:
        super().__init__()
        bias = settings.norm == "none"
        self.open = nn.Sequential(norm(settings.norm, channels), activation(settings.activation))
        self.body = nn.Sequential(
            _conv(channels, width, 3, stride, bias),
            norm(settings.norm, width),
            activation(settings.activation),
            _conv(width, width, 3, 1, bias),
        )
        changes = stride != 1 or channels != width
        self.shortcut = _conv(channels, width, 1, stride, bias) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum, not activated."""
        opened = self.open(x)
        return self.body(opened) + (x if self.shortcut is None else self.shortcut(opened))


class ResNet18(ResidualSettings):
    """ResNet-18 for small images, 11.2 million parameters at width 64.

    Attributes:
        width: channels of the first stage; the last has eight times as many.
    """

    name: ClassVar[str] = "resnet18"
    block: ClassVar[type[Basic] | type[PreAct]] = Basic
    width: Annotated[int, Field(ge=1, le=1024)] = 64

    def build(self, shape: Shape, classes: int) -> nn.Module:
        """Build the network."""
        widths = [self.width * factor for factor in (1, 2, 4, 8)]
        return ResNet(self.block, shape[0], self.width, widths, 2, classes, self)


class PreActResNet18(ResNet18):
    """ResNet-18 with pre-activation blocks, the usual network of adversarial training."""

    name: ClassVar[str] = "preact_resnet18"
    block: ClassVar[type[Basic] | type[PreAct]] = PreAct


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
        return ResNet(PreAct, shape[0], 16, widths, blocks, classes, self)


class ResNet(Network):
    """A 3×3 stem, and stages of residual blocks that halve the image between them.

    It has widths[-1] features.
    """

    def __init__(
        self,
        block: type[Basic] | type[PreAct],
        channels: int,
        stem: int,
        widths: Sequence[int],
        blocks: int,
        classes: int,
        settings: ResidualSettings,
    ) -> None:
        super().__init__()
        ending = [norm(settings.norm, widths[-1]), activation(settings.activation)]
        opening = [norm(settings.norm, stem), activation(settings.activation)]
        layers: list[nn.Module] = [_conv(channels, stem, 3, 1, settings.norm == "none")]
        layers += opening if block is Basic else []
        for stage, width in enumerate(widths):
            for index in range(blocks):
                stride = 2 if stage > 0 and index == 0 else 1
                layers.append(block(stem, width, stride, settings))
                stem = width
        layers += ending if block is PreAct else []
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(stem, classes)

"""Networks of the built-in architectures, and the blocks of the residual ones."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from cembench.models import Activation, Norm, Shape
from cembench.models.blocks import Network, activation, norm


class SmallNet(Network):
    """The network of `SmallCNN`, with 16·width features."""

    def __init__(
        self, shape: Shape, classes: int, first: int, normed: Norm, act: Activation
    ) -> None:
        super().__init__()
        channels, *size = shape
        layers: list[nn.Module] = []
        for factor, stride in ((1, 1), (2, 2), (2, 1), (4, 2)):
            width = factor * first
            layers += [
                nn.Conv2d(channels, width, 3, stride, padding=1, bias=normed == "none"),
                norm(normed, width),
                activation(act),
            ]
            channels = width
        # Pooling the 2×2 maps of 8×8 images changes nothing, and costs a tenth of a step.
        pool = (
            nn.Identity() if all(-(-side // 4) == 2 for side in size) else nn.AdaptiveAvgPool2d(2)
        )
        self.body = nn.Sequential(*layers, pool, nn.Flatten())
        self.head = nn.Linear(4 * channels, classes)


def _conv(channels: int, width: int, size: int, stride: int, bias: bool) -> nn.Conv2d:
    return nn.Conv2d(channels, width, size, stride, padding=size // 2, bias=bias)


class Basic(nn.Module):
    """Residual block: two convolutions, each followed by its normalisation, plus the shortcut."""

    def __init__(
        self, channels: int, width: int, stride: int, normed: Norm, act: Activation
    ) -> None:
        super().__init__()
        bias = normed == "none"
        self.body = nn.Sequential(
            _conv(channels, width, 3, stride, bias),
            norm(normed, width),
            activation(act),
            _conv(width, width, 3, 1, bias),
            norm(normed, width),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != width:
            self.shortcut = nn.Sequential(
                _conv(channels, width, 1, stride, bias), norm(normed, width)
            )
        self.act = activation(act)

    def forward(self, x: Tensor) -> Tensor:
        """Return the activated sum."""
        return self.act(self.body(x) + self.shortcut(x))


class PreAct(nn.Module):
    """Pre-activation block: two convolutions, each after its normalisation, plus the shortcut."""

    def __init__(
        self, channels: int, width: int, stride: int, normed: Norm, act: Activation
    ) -> None:
        super().__init__()
        bias = normed == "none"
        self.open = nn.Sequential(norm(normed, channels), activation(act))
        self.body = nn.Sequential(
            _conv(channels, width, 3, stride, bias),
            norm(normed, width),
            activation(act),
            _conv(width, width, 3, 1, bias),
        )
        changes = stride != 1 or channels != width
        self.shortcut = _conv(channels, width, 1, stride, bias) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum, not activated."""
        opened = self.open(x)
        return self.body(opened) + (x if self.shortcut is None else self.shortcut(opened))


class ResNet(Network):
    """A 3×3 stem, and stages of residual blocks that halve the image between them.

    It has widths[-1] features.
    """

    def __init__(
        self,
        pre_activation: bool,
        channels: int,
        stem: int,
        widths: Sequence[int],
        blocks: int,
        classes: int,
        normed: Norm,
        act: Activation,
    ) -> None:
        super().__init__()
        block = PreAct if pre_activation else Basic
        ending = [norm(normed, widths[-1]), activation(act)]
        opening = [norm(normed, stem), activation(act)]
        layers: list[nn.Module] = [_conv(channels, stem, 3, 1, normed == "none")]
        layers += [] if pre_activation else opening
        for stage, width in enumerate(widths):
            for index in range(blocks):
                stride = 2 if stage > 0 and index == 0 else 1
                layers.append(block(stem, width, stride, normed, act))
                stem = width
        layers += ending if pre_activation else []
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(stem, classes)

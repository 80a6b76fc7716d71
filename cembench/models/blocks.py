"""Activations and normalisations that architectures choose from."""

from __future__ import annotations

from torch import Tensor, nn

from cembench.models import Activation, Norm

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
}


def activation(kind: Activation) -> nn.Module:
    """Return an activation layer."""
    return _ACTIVATIONS[kind]()


def norm(kind: Norm, channels: int) -> nn.Module:
    """Return a normalisation layer; groups hold at least 8 channels."""
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "group":
        return nn.GroupNorm(max(1, min(8, channels // 8)), channels)
    return nn.Identity()


class Network(nn.Module):
    """A network in two parts: `features(x)` gives N×D, and `head` turns them into logits."""

    head: nn.Module

    def features(self, x: Tensor) -> Tensor:
        """Return what the head sees."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        return self.head(self.features(x))

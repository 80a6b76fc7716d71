"""Activation and normalisation layers by name, and the base of built-in networks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

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
    if kind == "dual":
        return DualBatchNorm2d(channels)
    if kind == "group":
        return nn.GroupNorm(max(1, min(8, channels // 8)), channels)
    return nn.Identity()


class DualBatchNorm2d(nn.Module):
    """Two batch norms: one for clean batches, one for attacked ones (arXiv 1911.09665, 2010.13337).

    Batches inside `clean_branch` use the first, all others the second, in evaluation too.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.clean = nn.BatchNorm2d(channels)
        self.attacked = nn.BatchNorm2d(channels)
        self.branch: Literal["clean", "attacked"] = "attacked"

    def forward(self, x: Tensor) -> Tensor:
        """Normalise N×C×H×W with the statistics of the branch."""
        return self.clean(x) if self.branch == "clean" else self.attacked(x)


@contextmanager
def clean_branch(model: nn.Module) -> Iterator[None]:
    """Use the clean branch of every dual batch norm; other networks are not affected."""
    duals = [module for module in model.modules() if isinstance(module, DualBatchNorm2d)]
    for dual in duals:
        dual.branch = "clean"
    try:
        yield
    finally:
        for dual in duals:
            dual.branch = "attacked"


class ThreeChannels(nn.Module):
    """Repeat one channel to three."""

    def forward(self, x: Tensor) -> Tensor:
        """Return a view with three equal channels."""
        return x.expand(-1, 3, -1, -1)


class Network(nn.Module):
    """A network in two parts: `body` gives N×D features, and `head` turns them into logits."""

    body: nn.Module
    head: nn.Module

    def features(self, x: Tensor) -> Tensor:
        """Return the input of the head, N×D."""
        found: Tensor = self.body(x)
        return found

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        return self.head(self.features(x))

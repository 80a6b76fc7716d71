"""Certified lower bounds of margins in a ball, by linear bounds of activations.

Every activation lies between two parallel lines over the values that it can meet. So every value
of the network lies between two affine functions of the image, which are propagated back to it
(Fast-Lin, Weng et al., arXiv 1804.09699, and CROWN, Zhang et al., arXiv 1811.00866, with chords
for slopes).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vjp, vmap

from cembench.energy.norms import Ball
from cembench.models.blocks import DualBatchNorm2d, Network
from cembench.models.classifier import Classifier
from cembench.util.errors import ModelError

AFFINE: tuple[type[nn.Module], ...] = (
    *(nn.Conv2d, nn.Linear, nn.BatchNorm2d, DualBatchNorm2d),
    *(nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Flatten, nn.Identity, nn.Dropout),
)
CURVATURE: dict[type[nn.Module], float] = {
    nn.ReLU: 0.0,
    nn.SiLU: 0.5,
    nn.Softplus: 0.25,
    nn.Tanh: 0.77,
    nn.Sigmoid: 0.0963,
}
POINTS = 65  # of an activation, between which its curvature bounds it
ROUNDING = 1e-4  # of the largest logit, far above what float32 rounds in a few layers
LARGEST = 2**15  # values before the activations: each has a row of the size of the image
Lines = tuple[Tensor, Tensor, Tensor]  # slope, and the lower and the upper intercept


@dataclass(frozen=True)
class Chain:
    """A network as affine maps with an activation between each two.

    Attributes:
        maps: the affine maps, in float64.
        activations: what follows each of them but the last.
    """

    maps: list[nn.Module]
    activations: list[nn.Module]

    @classmethod
    def of(cls, model: nn.Module, shape: tuple[int, int, int]) -> Chain:
        """Return a copy of a network as a chain.

        Raises:
            ModelError: naming the layer that it cannot have.
        """
        maps: list[list[nn.Module]] = [[]]
        activations = []
        for layer in _layers(copy.deepcopy(model).cpu().double().eval()):
            if type(layer) in CURVATURE and getattr(layer, "beta", 1) == 1:
                vars(layer)["inplace"] = False
                activations.append(layer)
                maps.append([])
            elif type(layer) in (*AFFINE, Normalisation) and not _depends_on_batch(layer):
                maps[-1].append(layer)
            else:
                raise ModelError(f"no certified bounds: {type(layer).__name__} is not known")
        chain = cls([nn.Sequential(*part) for part in maps], activations)
        values = sum(one.numel() for one in chain.outputs(torch.zeros(shape))[:-1])
        if values > LARGEST:
            raise ModelError(f"no certified bounds: {values} activations, more than {LARGEST}")
        return chain

    @torch.no_grad()
    def outputs(self, x: Tensor) -> list[Tensor]:
        """Return what each affine map gives for an image, C×H×W."""
        found, x = [], x.double()[None]
        for affine, act in zip(self.maps, [*self.activations, nn.Identity()], strict=True):
            found.append(affine(x)[0])
            x = act(found[-1][None])
        return found

    @torch.no_grad()
    def margins(self, x: Tensor, label: int, ball: Ball) -> Tensor:
        """Return lower bounds of f_y − f_k in the ball around an image, K values.

        They are smaller by what the network may lose to rounding in float32, that of y itself too.

        Args:
            x: the image, C×H×W.
            label: its class y.
            ball: the ball, in ℓ∞, ℓ2 or ℓ1; images outside [0, 1] are not in it.
        """
        x, lines = x.double().cpu(), list[Lines]()
        *inner, logits = self.outputs(x)
        for value, act in zip(inner, self.activations, strict=True):
            rows = torch.eye(value.numel(), dtype=torch.float64).reshape(-1, *value.shape)
            low, high = self._bounds(rows, lines, x, ball)
            lines.append(_parallel(act, low.reshape(value.shape), high.reshape(value.shape)))
        unit = torch.eye(logits.numel(), dtype=torch.float64)
        bounds = self._bounds(unit[label] - unit, lines, x, ball)[0]
        return bounds - ROUNDING * logits.abs().max().clamp(min=1)

    def _bounds(
        self, rows: Tensor, lines: list[Lines], x: Tensor, ball: Ball
    ) -> tuple[Tensor, Tensor]:
        """Return bounds of R linear functions of what affine map number `len(lines)` gives."""
        low = high = torch.zeros(len(rows), dtype=torch.float64)
        for number in range(len(lines), -1, -1):
            if number < len(lines):
                slope, under, over = lines[number]
                up, down = rows.clamp(min=0), rows.clamp(max=0)
                low = low + (up * under + down * over).flatten(1).sum(1)
                high = high + (up * over + down * under).flatten(1).sum(1)
                rows = rows * slope
            shape = x.shape if number == 0 else lines[number - 1][0].shape
            rows, offset = _through(self.maps[number], rows, shape)
            low, high = low + offset, high + offset
        near, far = _extremes(rows, x, ball)
        return low + near, high + far


class Normalisation(nn.Module):
    """Normalisation of the pixels of a classifier."""

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.mean, self.std = mean, std

    def forward(self, x: Tensor) -> Tensor:
        """Return normalised images."""
        return (x - self.mean) / self.std


def _layers(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the layers of a network that has them one after the other.

    Raises:
        ModelError: when one may compute something else than its class.
    """
    if model._forward_hooks or model._forward_pre_hooks or "forward" in vars(model):
        raise ModelError(f"no certified bounds: {type(model).__name__} has hooks")
    if type(model) is Classifier:
        yield Normalisation(model.mean, model.std)
        yield from _layers(model.net)
    elif isinstance(model, Network) and type(model).forward is Network.forward:
        yield from _layers(model.body)
        yield from _layers(model.head)
    elif type(model) is nn.Sequential:
        for layer in model:
            yield from _layers(layer)
    else:
        yield model


def _depends_on_batch(layer: nn.Module) -> bool:
    return isinstance(layer, nn.BatchNorm2d) and layer.running_mean is None


def _through(affine: nn.Module, rows: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """Return R linear functions of what an affine map gives as functions of what it gets.

    Returns:
        Their coefficients, R×shape, and their constants, R.
    """
    pulled: Any = vjp(affine, torch.zeros(1, *shape, dtype=torch.float64))
    out, back = pulled
    return vmap(lambda row: back(row[None])[0][0])(rows), (rows * out).flatten(1).sum(1)


def _extremes(rows: Tensor, x: Tensor, ball: Ball) -> tuple[Tensor, Tensor]:
    """Return the least and the largest value of R linear functions in a ball ∩ [0, 1]."""
    eps = ball.eps + ball.tolerance
    bottom, top = (x - eps).clamp(min=0), (x + eps).clamp(max=1)
    up, down = rows.clamp(min=0).flatten(1), rows.clamp(max=0).flatten(1)
    low, high = (
        up @ bottom.flatten() + down @ top.flatten(),
        up @ top.flatten() + down @ bottom.flatten(),
    )
    middle = rows.flatten(1) @ x.flatten()
    length = rows.flatten(1).norm(p=ball.dual_order, dim=1)
    return torch.maximum(low, middle - eps * length), torch.minimum(high, middle + eps * length)


def _parallel(act: nn.Module, low: Tensor, high: Tensor) -> Lines:
    """Return two lines of one slope, between which an activation lies from `low` to `high`."""
    width = high - low
    narrow = width < 1e-9
    slope = torch.where(narrow, 0, (act(high) - act(low)) / torch.where(narrow, 1, width))
    share = torch.linspace(0, 1, POINTS, dtype=torch.float64).reshape(-1, *[1] * low.dim())
    places = torch.cat([low + share * width, torch.zeros_like(low).clamp(low, high)[None]])
    off = act(places) - slope * places
    slack = CURVATURE[type(act)] * (width / (POINTS - 1)) ** 2 / 8 + 1e-8  # Softplus jumps by 2e-9
    return slope, off.amin(0) - slack, off.amax(0) + slack

"""Proposals of the Square attack (arXiv 1912.00049): one search per norm, drawn beforehand."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from cembench.attacks.state import AttackState
from cembench.energy.norms import unit

INITIAL_FRACTION = 0.8  # of the pixels that the first windows hold
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


def window_fraction(number: float) -> float:
    """Return the fraction of pixels that proposal `number` changes."""
    return INITIAL_FRACTION / 2 ** sum(number > limit for limit in HALVINGS)


@dataclass(frozen=True)
class Windows:
    """Squares, one per proposal, Q of them: upper left corners, sides, and what they hold.

    Attributes:
        rows: the rows of pixels that each holds, Q×H booleans.
        columns: the columns, Q×W.
    """

    top: Tensor
    left: Tensor
    side: Tensor
    rows: Tensor
    columns: Tensor

    @classmethod
    def at(cls, top: Tensor, left: Tensor, side: Tensor, height: int, width: int) -> Windows:
        """Return windows in images of some size."""
        held = []
        for start, length in ((top, height), (left, width)):
            at = torch.arange(length, device=side.device) - start[:, None]
            held.append((at >= 0) & (at < side[:, None]))
        return cls(top, left, side, *held)

    def mask(self, number: Tensor) -> Tensor:
        """Return which pixels the windows of proposals M×A hold, M×A×1×H×W."""
        rows, columns = self.rows[number], self.columns[number]
        return (rows.unsqueeze(-1) & columns.unsqueeze(-2)).unsqueeze(2)


class Search(ABC):
    """The random choices for N images, drawn beforehand.

    Attributes:
        first: the initial images, N×C×H×W.
        queries: the number of proposals that follow.
        pace: how much faster than in the paper windows shrink.
    """

    first: Tensor

    def __init__(
        self, state: AttackState, generator: torch.Generator, queries: int, pace: float = 1.0
    ) -> None:
        self.state, self.generator, self.queries, self.pace = state, generator, queries, pace
        self.channels, self.height, self.width = state.x.shape[1:]

    def sides(self, least: int, odd: bool) -> Tensor:
        """Return the side of the window of each proposal."""
        area = self.height * self.width
        areas = [window_fraction(number * self.pace) * area for number in range(self.queries)]
        sides = [max(round(math.sqrt(area)), least) for area in areas]
        found = torch.tensor(sides, device=self.state.x.device)
        found = found + (found % 2 == 0) if odd else found
        return found.clamp_max(min(self.height, self.width))

    def windows(self, side: Tensor) -> Windows:
        """Return a random place for the window of each side."""
        free = torch.stack([self.height - side, self.width - side])
        drawn = torch.rand(free.shape, generator=self.generator, device=side.device)
        top, left = (free * drawn).long()
        return Windows.at(top, left, side, self.height, self.width)

    def signs(self, *shape: int) -> Tensor:
        """Return random signs, −1 and 1."""
        drawn = torch.rand(shape, generator=self.generator, device=self.state.x.device)
        return torch.sign(2 * drawn - 1)

    @abstractmethod
    def narrow(self, rows: Tensor) -> None:
        """Look up what proposals for the images `rows`, M, need."""

    @abstractmethod
    def propose(self, best: Tensor, number: Tensor) -> Tensor:
        """Return proposals `number`, M×A, for the narrowed images, M×A×C×H×W.

        Each changes an image of its own row of `best`, M×C×H×W.
        """


class LinfSearch(Search):
    """Search among the corners of the ball: vertical stripes, then squares of one colour."""

    def __init__(
        self, state: AttackState, generator: torch.Generator, queries: int, pace: float = 1.0
    ) -> None:
        super().__init__(state, generator, queries, pace)
        self.low = (state.x - state.ball.eps).clamp_min(0)
        self.high = (state.x + state.ball.eps).clamp_max(1)
        stripes = self.signs(len(state.x), self.channels, 1, self.width)
        self.first = torch.where(stripes > 0, self.high, self.low)
        self.window = self.windows(self.sides(1, odd=False))
        self.colour = self.signs(queries, self.channels, 1, 1)

        self.upwards = self.colour > 0

    def narrow(self, rows: Tensor) -> None:
        """Look up both edges of the ball."""
        self.edges = self.high[rows, None], self.low[rows, None]

    def propose(self, best: Tensor, number: Tensor) -> Tensor:
        """Move all pixels of a square to the edge of the ball, with one sign per channel."""
        corner = torch.where(self.upwards[number], *self.edges)
        return torch.where(self.window.mask(number), corner, best[:, None])


class L2Search(Search):
    """Search among bumps of opposite sign: the mass of one window moves into another."""

    def __init__(
        self, state: AttackState, generator: torch.Generator, queries: int, pace: float = 1.0
    ) -> None:
        super().__init__(state, generator, queries, pace)
        self.first = (state.x + state.ball.eps * unit(self._tiles())).clamp(0, 1)
        side = self.sides(3, odd=True)
        self.into, self.out_of = self.windows(side), self.windows(side)
        self.transposed = self.signs(queries) > 0
        self.sign = self.signs(queries, len(state.x), self.channels)
        self.bumps, self.bump = _table(side, self.transposed)

    def _tiles(self) -> Tensor:
        """Return bumps all over the image, with random signs."""
        delta, side = torch.zeros_like(self.state.x), max(1, self.height // 5)
        edge = max(0, self.height - 5 * side) // 2
        for top in range(edge, edge + self.height // side * side, side):
            for left in range(edge, edge + self.width // side * side, side):
                sign = self.signs(len(delta), self.channels, 1, 1)
                tile = delta[:, :, top : top + side, left : left + side]
                bump = bumps(side, bool(self.signs(1) > 0)).to(delta.device)
                tile += sign * bump[: tile.shape[2], : tile.shape[3]]
        return delta

    def narrow(self, rows: Tensor) -> None:
        """Look up the images."""
        self.rows, self.x = rows[:, None], self.state.x[rows, None]

    def propose(self, best: Tensor, number: Tensor) -> Tensor:
        """Empty one window and fill another with a bump."""
        x, eps = self.x, self.state.ball.eps
        into, out_of = self.into.mask(number), self.out_of.mask(number)
        delta = best[:, None] - x
        spare = (eps**2 - delta.square().sum((2, 3, 4), keepdim=True)).clamp_min(0)
        mass = (delta * (into | out_of)).square().sum((3, 4), keepdim=True)
        before = delta * into
        bump = self._planes(number) * self.sign[number, self.rows][..., None, None]
        bump = bump + before / (1e-12 + _norm(before))
        bump = bump / (1e-12 + _norm(bump)) * (spare / self.channels + mass).sqrt()
        delta = torch.where(into, bump, delta.masked_fill(out_of, 0)).flatten(0, 1)
        moved = x + eps * unit(delta).unflatten(0, number.shape)
        return moved.clamp(0, 1)

    def _planes(self, number: Tensor) -> Tensor:
        """Return the bumps of proposals in their places, M×A×1×H×W."""
        device, most = number.device, self.bumps.shape[-1] - 1
        down = torch.arange(self.height, device=device) - self.into.top[number][..., None]
        right = torch.arange(self.width, device=device) - self.into.left[number][..., None]
        down, right = down.clamp(0, most)[..., None], right.clamp(0, most)[..., None, :]
        planes = self.bumps[self.bump[number][..., None, None], down, right]
        return planes.unsqueeze(2) * self.into.mask(number)


SEARCHES: dict[str, type[Search]] = {"linf": LinfSearch, "l2": L2Search}


def _table(side: Tensor, transposed: Tensor) -> tuple[Tensor, Tensor]:
    """Return all different bumps, B×S×S, the smaller ones padded; and which one each is."""
    kinds = torch.stack([side, transposed.to(side.dtype)], 1)
    distinct, which = kinds.unique(dim=0, return_inverse=True)
    most = int(side.max())
    table = torch.zeros(len(distinct), most, most)
    for bump, (length, turned) in zip(table, distinct.tolist(), strict=True):
        bump[:length, :length] = bumps(length, bool(turned))
    return table.to(side.device), which


def bumps(side: int, transposed: bool) -> Tensor:
    """Return a bump up above a bump down, side×side, of length 1; or its transpose."""
    upper = side // 2
    delta = torch.cat([_bump(upper, side), -_bump(side - upper, side)])
    delta = delta / delta.norm()
    return delta.T if transposed else delta


def _bump(height: int, width: int) -> Tensor:
    """Return Σ 1/(m + 1)² over the squares of radius m that hold a pixel, of length 1."""
    down = (torch.arange(height) - height // 2).abs()
    right = (torch.arange(width) - width // 2).abs()
    distance = torch.maximum(down[:, None], right[None, :])
    radii = torch.arange(max(height // 2, width // 2) + 1)
    found = ((radii >= distance[..., None]) / (radii + 1.0) ** 2).sum(-1)
    return found / found.norm()


def _norm(window: Tensor) -> Tensor:
    return window.square().sum((-2, -1), keepdim=True).sqrt()

"""Proposals of the Square attack in ℓ2 and ℓ1: bumps that move from window to window."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from cembench.attacks.square_search import Search
from cembench.attacks.state import AttackState
from cembench.energy.norms import unit


class BumpSearch(Search):
    """Search among bumps of opposite sign: the mass of one window moves into another."""

    order: ClassVar[int]  # p of ℓp
    fading: ClassVar[int]  # how fast bumps fall off

    def __init__(
        self, state: AttackState, generator: torch.Generator, queries: int, pace: float = 1.0
    ) -> None:
        super().__init__(state, generator, queries, pace)
        self.first = self.land(state.x, self._tiles())
        side = self.sides(3, odd=True)
        self.into, self.out_of = self.windows(side), self.windows(side)
        self.transposed = self.signs(queries) > 0
        self.sign = self.signs(queries, len(state.x), self.channels)
        self.bumps, self.bump = self._table(side)

    @abstractmethod
    def land(self, x: Tensor, delta: Tensor) -> Tensor:
        """Return images of size ε around x that change as delta does, N×C×H×W."""

    @abstractmethod
    def mass(self, delta: Tensor) -> Tensor:
        """Return what values add to the p-th power of the norm."""

    @abstractmethod
    def scale(self, spare: Tensor, mass: Tensor) -> Tensor:
        """Return the norm of a bump from the spare mass of an image, and that of its windows."""

    def bump_of(self, side: int, transposed: bool) -> Tensor:
        """Return a bump, side×side."""
        return bumps(side, transposed, self.order, self.fading)

    def _tiles(self) -> Tensor:
        """Return bumps all over the image, with random signs."""
        delta, side = torch.zeros_like(self.state.x), max(1, self.height // 5)
        edge = max(0, self.height - 5 * side) // 2
        for top in range(edge, edge + self.height // side * side, side):
            for left in range(edge, edge + self.width // side * side, side):
                sign = self.signs(len(delta), self.channels, 1, 1)
                tile = delta[:, :, top : top + side, left : left + side]
                bump = self.bump_of(side, bool(self.signs(1) > 0)).to(delta.device)
                tile += sign * bump[: tile.shape[2], : tile.shape[3]]
        return delta

    def narrow(self, rows: Tensor) -> None:
        """Look up the images."""
        self.rows, self.x = rows[:, None], self.state.x[rows, None]

    def propose(self, best: Tensor, number: Tensor) -> Tensor:
        """Empty one window and fill another with a bump."""
        x = self.x
        into, out_of = self.into.mask(number), self.out_of.mask(number)
        delta = best[:, None] - x
        whole = self.state.ball.eps**self.order
        spare = (whole - self.mass(delta).sum((2, 3, 4), keepdim=True)).clamp_min(0)
        mass = self.mass(delta * torch.maximum(into, out_of)).sum((3, 4), keepdim=True)
        before = delta * into
        bump = self._planes(number) * self.sign[number, self.rows][..., None, None]
        bump = bump + before / (1e-12 + _norm(before, self.order))
        bump = bump / (1e-12 + _norm(bump, self.order)) * self.scale(spare, mass)
        delta = torch.lerp(delta * (1 - out_of), bump, into)
        around = x.expand_as(delta).flatten(0, 1)
        return self.land(around, delta.flatten(0, 1)).unflatten(0, number.shape)

    def _planes(self, number: Tensor) -> Tensor:
        """Return the bumps of proposals in their places, M×A×1×H×W."""
        device, most = number.device, self.bumps.shape[-1] - 1
        down = torch.arange(self.height, device=device) - self.into.top[number][..., None]
        right = torch.arange(self.width, device=device) - self.into.left[number][..., None]
        down, right = down.clamp(0, most)[..., None], right.clamp(0, most)[..., None, :]
        planes = self.bumps[self.bump[number][..., None, None], down, right]
        return planes.unsqueeze(2) * self.into.mask(number)

    def _table(self, side: Tensor) -> tuple[Tensor, Tensor]:
        """Return all different bumps, B×S×S, the smaller ones padded; and which one each is."""
        kinds = torch.stack([side, self.transposed.to(side.dtype)], 1)
        distinct, which = kinds.unique(dim=0, return_inverse=True)
        most = int(side.max())
        table = torch.zeros(len(distinct), most, most)
        for bump, (length, turned) in zip(table, distinct.tolist(), strict=True):
            bump[:length, :length] = self.bump_of(length, bool(turned))
        return table.to(side.device), which


class L2Search(BumpSearch):
    """Search with bumps in ℓ2."""

    order, fading = 2, 2

    def land(self, x: Tensor, delta: Tensor) -> Tensor:
        """Scale the change to length ε."""
        return (x + self.state.ball.eps * unit(delta)).clamp(0, 1)

    def mass(self, delta: Tensor) -> Tensor:
        """Return squares."""
        return delta.square()

    def scale(self, spare: Tensor, mass: Tensor) -> Tensor:
        """Return a length."""
        return (spare / self.channels + mass).sqrt()


class L1Search(BumpSearch):
    """Search with bumps in ℓ1, projected onto ball and [0, 1] (arXiv 2103.01208, section 5)."""

    order, fading = 1, 4

    def land(self, x: Tensor, delta: Tensor) -> Tensor:
        """Project onto a ball that rounding does not leave."""
        ball = self.state.ball
        return replace(ball, eps=ball.eps * (1 - 1e-6)).project(x + delta, x)

    def mass(self, delta: Tensor) -> Tensor:
        """Return magnitudes."""
        return delta.abs()

    def scale(self, spare: Tensor, mass: Tensor) -> Tensor:
        """Return a sum of magnitudes, which the projection shortens."""
        return (spare / self.channels + mass) * self.channels


def bumps(side: int, transposed: bool, order: int = 2, fading: int = 2) -> Tensor:
    """Return a bump up above a bump down, side×side, of norm 1; or its transpose.

    Args:
        order: p of the norm ℓp.
        fading: the power of the distance with which bumps fall off.
    """
    upper = side // 2
    parts = _bump(upper, side, order, fading), -_bump(side - upper, side, order, fading)
    delta = torch.cat(parts)
    delta = delta / delta.norm(order)
    return delta.T if transposed else delta


def _bump(height: int, width: int, order: int, fading: int) -> Tensor:
    """Return Σ 1/(m + 1)^fading over the squares of radius m that hold a pixel, of norm 1."""
    down = (torch.arange(height) - height // 2).abs()
    right = (torch.arange(width) - width // 2).abs()
    distance = torch.maximum(down[:, None], right[None, :])
    radii = torch.arange(max(height // 2, width // 2) + 1)
    found = ((radii >= distance[..., None]) / (radii + 1.0) ** fading).sum(-1)
    return found / found.norm(order)


def _norm(window: Tensor, order: int) -> Tensor:
    if order == 1:
        return window.abs().sum((-2, -1), keepdim=True)
    return window.square().sum((-2, -1), keepdim=True).sqrt()

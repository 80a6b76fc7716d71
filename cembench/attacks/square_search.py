"""Proposals of the Square attack (arXiv 1912.00049), drawn beforehand; those in ℓ∞."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from cembench.attacks.state import AttackState

INITIAL_FRACTION = 0.8  # of the pixels that the first windows hold
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


def window_fraction(number: float) -> float:
    """Return the fraction of pixels that proposal `number` changes."""
    return INITIAL_FRACTION / 2 ** sum(number > limit for limit in HALVINGS)


@dataclass(frozen=True)
class Windows:
    """Squares, one per proposal, Q of them: upper left corners, sides, and what they hold.

    Attributes:
        rows: the rows of pixels that each holds, Q×H: 1 where it does, else 0.
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
            held.append(((at >= 0) & (at < side[:, None])).float())
        return cls(top, left, side, *held)

    def mask(self, number: Tensor) -> Tensor:
        """Return 1 where the windows of proposals M×A hold a pixel, else 0, M×A×1×H×W.

        As numbers, since a CPU takes five times as long to choose by booleans.
        """
        rows, columns = self.rows[number], self.columns[number]
        return (rows.unsqueeze(-1) * columns.unsqueeze(-2)).unsqueeze(2)


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
        self.upwards = (self.colour > 0).float()

    def narrow(self, rows: Tensor) -> None:
        """Look up both edges of the ball."""
        self.edges = self.low[rows, None], self.high[rows, None]

    def propose(self, best: Tensor, number: Tensor) -> Tensor:
        """Move all pixels of a square to the edge of the ball, with one sign per channel."""
        corner = torch.lerp(*self.edges, self.upwards[number])
        return torch.lerp(best[:, None], corner, self.window.mask(number))

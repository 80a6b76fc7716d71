"""Best iterates of a search: which image of each ascent is kept, and which ascents are done."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cembench.energy.ascent import to_bytes
from cembench.energy.norms import Ball
from cembench.energy.potentials import Potential


class BestIterates:
    """Best iterate of each image so far, by a score.

    The score is 1 if the iterate is misclassified, plus 1 if it still is after rounding to 8 bits,
    plus loss / (1 + |loss|). Losses that can be negative are so on what is classified correctly.

    Args:
        judge: the model that decides what is misclassified.
        own_outputs: whether the judge is the model whose outputs `visit` is given.
        potential: the loss.
        centre: clean images, N×C×H×W.
        y: their labels, N.
        ball: what rounded images have to stay in.
    """

    def __init__(
        self,
        judge: nn.Module,
        own_outputs: bool,
        potential: Potential,
        centre: Tensor,
        y: Tensor,
        ball: Ball,
    ) -> None:
        self.judge, self.own_outputs, self.potential = judge, own_outputs, potential
        self.centre, self.y, self.ball = centre, y, ball
        self.x = centre.clone()
        self.score = torch.full((len(y),), -torch.inf, device=centre.device)

    @property
    def correct(self) -> Tensor:
        """Rows of the images that were never misclassified."""
        return (self.score < 1).nonzero().squeeze(1)

    def visit(self, active: Tensor, step: int, rows: Tensor, x: Tensor, out: Tensor) -> Tensor:
        """Score an iterate of the images `active[rows]`, and return which of them are done."""
        rows = active[rows]
        loss = self.potential(out, self.y[rows])
        wrong = out.argmax(1) != self.y[rows]
        if not self.own_outputs and bool(wrong.any()):
            wrong[wrong.clone()] = self._misclassified(x[wrong], rows[wrong])
        done = wrong.clone()
        if bool(wrong.any()):
            rounded = to_bytes(x[wrong], self.centre[rows[wrong]], self.ball)
            done[wrong] = self._misclassified(rounded, rows[wrong])
        score = wrong.float() + done.float() + loss / (1 + loss.abs())
        better = score > self.score[rows]
        self.x[rows[better]], self.score[rows[better]] = x[better], score[better]
        return done

    def _misclassified(self, x: Tensor, rows: Tensor) -> Tensor:
        with torch.no_grad():
            return self.judge(x).argmax(1) != self.y[rows]

"""Best iterates of a search: which image of each ascent is kept, and which ascents are done."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cembench.energy.ascent import to_bytes
from cembench.energy.norms import Ball, per_row
from cembench.energy.potentials import Potential
from cembench.util.devices import patience


class BestIterates:
    """Best iterate of each image so far, by a score.

    The score is 1 if the iterate is misclassified, plus 1 if it still is after rounding to 8 bits,
    plus loss / (1 + |loss|). Losses that can be negative are so on what is classified correctly.

    Iterates are scored together every few steps on a GPU, which a look at them keeps waiting; the
    result is that of scoring each at once.

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
        self.wait, self.patience = 1, patience(centre.device)
        self.rows = torch.empty(0, dtype=torch.long, device=centre.device)
        self.seen: list[tuple[Tensor, Tensor, Tensor]] = []

    @property
    def correct(self) -> Tensor:
        """Rows of the images that were never misclassified."""
        return (self.score < 1).nonzero().squeeze(1)

    def visit(
        self, active: Tensor, step: int, rows: Tensor, x: Tensor, out: Tensor
    ) -> Tensor | None:
        """Note an iterate of the images `active[rows]`; at a look return which of them are done."""
        if not self.seen:  # no images leave before the next look
            self.rows = active[rows]
        y = self.y[self.rows]
        self.seen.append((x, self.potential(out, y), out.argmax(1) != y))
        return self.look() if len(self.seen) >= self.wait else None

    def look(self) -> Tensor | None:
        """Score the iterates noted since the last look; None where none is misclassified."""
        seen, self.seen = self.seen, []
        found = bool(seen) and bool(torch.stack([wrong for *_, wrong in seen]).any())
        self.wait = 1 if found else min(2 * self.wait, self.patience)
        done = torch.zeros_like(self.rows, dtype=torch.bool) if found else None
        for x, loss, wrong in seen:
            done = self._keep(x, loss, wrong, done)
        return done

    def _keep(self, x: Tensor, loss: Tensor, wrong: Tensor, done: Tensor | None) -> Tensor | None:
        """Keep what is better than before where an image is not done yet; None if none is wrong."""
        score = loss / (1 + loss.abs())
        if done is not None:
            wrong, rounded = self._judged(x, wrong & ~done)
            score = (wrong.float() + rounded.float() + score).masked_fill(done, -torch.inf)
            done = done | rounded
        better = score > self.score[self.rows]
        self.x[self.rows] = torch.where(per_row(better, x), x, self.x[self.rows])
        self.score[self.rows] = torch.where(better, score, self.score[self.rows])
        return done

    def _judged(self, x: Tensor, wrong: Tensor) -> tuple[Tensor, Tensor]:
        """Return which iterates are misclassified as they are, and rounded to 8 bits too."""
        at = wrong.nonzero().squeeze(1)
        if len(at) and not self.own_outputs:
            at = at[self._misclassified(x[at], at)]
        found = torch.zeros_like(wrong).index_fill(0, at, True)
        if len(at):
            rounded = to_bytes(x[at], self.centre[self.rows[at]], self.ball)
            at = at[self._misclassified(rounded, at)]
        return found, torch.zeros_like(wrong).index_fill(0, at, True)

    def _misclassified(self, x: Tensor, at: Tensor) -> Tensor:
        with torch.no_grad():
            return self.judge(x).argmax(1) != self.y[self.rows[at]]

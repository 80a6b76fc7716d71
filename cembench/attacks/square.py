"""Square (Andriushchenko et al., arXiv 1912.00049): random search, forward passes alone.

All random choices are drawn beforehand. So where few images are left, several proposals for the
same image go through the network in one batch, and those after the first improvement are dropped:
the result is the same.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cembench.attacks.square_bumps import L1Search, L2Search
from cembench.attacks.square_search import LinfSearch, Search
from cembench.attacks.state import AttackState
from cembench.attacks.watch import Watch
from cembench.energy.ascent import staying
from cembench.energy.norms import by_norm, per_row

SEARCHES: dict[str, type[Search]] = {"linf": LinfSearch, "l2": L2Search, "l1": L1Search}


@torch.no_grad()  # inference mode would fail on networks that need gradients in their forward pass
def square(
    model: nn.Module,
    state: AttackState,
    generator: torch.Generator,
    *,
    queries: int = 5000,
    max_batch: int,
    pace: float = 1.0,
) -> Tensor:
    """Attack by random search, and return the last accepted proposal per image, N×C×H×W.

    Everything is drawn for all images, whether they are active or not.

    Args:
        queries: proposals per image.
        max_batch: proposals per batch.
        pace: how much faster than with 5000 queries windows shrink.

    Raises:
        CembenchError: for a norm that Square does not have.
    """
    search = by_norm(SEARCHES, state.ball.name, "Square")(state, generator, queries, pace)
    walk = _Walk(model, search, max_batch)
    while len(walk.rows):
        walk.step()
    return walk.ends


class _Walk:
    """A random search on the active images, M of them.

    Attributes:
        rows: which images they are.
        best: the last accepted proposals, M×C×H×W.
        margin: of these, M.
        number: the proposals tried, M.
        most: the largest of them.
        ahead: how many to try at once.
        helped: how often an image moved, and to a success, since the last look at the device.
        ends: where the search on each image has ended, N×C×H×W.
    """

    def __init__(self, model: nn.Module, search: Search, max_batch: int) -> None:
        self.model, self.search, self.state = model, search, search.state
        self.max_batch, self.ahead, self.most = max_batch, 1, 0
        self.ends = search.first.clone()
        self._take(self.state.active)
        self.best = search.first[self.rows]
        self.number = torch.zeros_like(self.rows)
        self.margin = margins(model, self.best[:, None], self.y).squeeze(1)
        self.helped, self.watch = self.rows.new_zeros(2), Watch(self.state)
        self.watch.note(self.best, self.margin < 0)
        self._leave(None)

    def step(self) -> None:
        """Try the next proposals for every image, up to the first that helps."""
        self.state.require_running()
        self.ahead = min(self.ahead, max(1, self.max_batch // len(self.rows)))
        number = self.number[:, None] + torch.arange(self.ahead, device=self.rows.device)
        last = self.most + self.ahead > self.search.queries
        held = number.clamp_max(self.search.queries - 1) if last else number
        tried = self.search.propose(self.best, held)
        found = margins(self.model, tried, self.y)
        if last:
            found = found.masked_fill(number >= self.search.queries, torch.inf)
        helped = self._accept(tried, found)
        won = helped & (self.margin < 0)
        self.helped = self.helped + torch.stack([helped.sum(), won.sum()])
        self.most += self.ahead
        if self.watch.note(self.best, won) or self.most >= self.search.queries:
            self._look(len(won) * len(self.watch.seen))

    def _look(self, tried: int) -> None:
        """Look at how many of the tried batches helped, and whether any image is done."""
        better, successes = self.helped.tolist()
        self.helped = torch.zeros_like(self.helped)
        if successes or self.most >= self.search.queries:
            self._leave(bool(successes))
        else:
            self.watch.look(self.rows, False)
        few = 2 * better < tried
        self.ahead = 2 * self.ahead if few else max(1, self.ahead // 2)

    def _accept(self, tried: Tensor, found: Tensor) -> Tensor:
        """Move to the first proposals that help, and return for which images there is one."""
        improved = found < self.margin[:, None]
        if self.ahead == 1:
            helped, tried, found = improved.squeeze(1), tried.squeeze(1), found.squeeze(1)
            self.number = self.number + 1
        else:
            helped, where = improved.max(1)
            first = torch.arange(len(where), device=where.device), where
            tried, found = tried[first], found[first]
            self.number = self.number + torch.where(helped, where + 1, self.ahead)
        self.best = torch.where(per_row(helped, self.best), tried, self.best)
        self.margin = torch.where(helped, found, self.margin)
        return helped

    def _leave(self, found: bool | None) -> None:
        """Record successes, and drop the images whose search ends with them or is through."""
        over = self.number >= self.search.queries
        done = self.watch.look(self.rows, found)
        kept = staying(over if done is None else over | done)
        self.most = int(self.number.max()) if len(self.number) else 0
        if kept is not None:
            self.ends[self.rows] = self.best
            self.best, self.margin, self.number = (
                part[kept] for part in (self.best, self.margin, self.number)
            )
            self._take(self.rows[kept])

    def _take(self, rows: Tensor) -> None:
        self.rows, self.y = rows, self.state.y[rows, None, None]
        self.search.narrow(rows)


def margins(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return f_y minus the largest other logit, negative for what is misclassified.

    Images are M×A×C×H×W, labels M×1×1, margins M×A.
    """
    out = model(x.flatten(0, 1)).unflatten(0, x.shape[:2])
    y = y.expand(-1, x.shape[1], -1)
    return (out.gather(2, y).squeeze(2)) - out.scatter(2, y, -torch.inf).amax(2)

"""Square (Andriushchenko et al., arXiv 1912.00049): random search, forward passes alone.

All random choices are drawn beforehand. So where few images are left, several proposals for the
same image go through the network in one batch, and those after the first improvement are dropped:
the result is the same.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cembench.attacks.square_search import SEARCHES, Search
from cembench.attacks.state import AttackState
from cembench.energy.norms import by_norm, per_row


@torch.no_grad()  # inference mode would fail on networks that need gradients in their forward pass
def square(
    model: nn.Module,
    state: AttackState,
    generator: torch.Generator,
    *,
    queries: int = 5000,
    max_batch: int,
) -> Tensor:
    """Attack by random search, and return the last accepted proposal per image, N×C×H×W.

    Everything is drawn for all images, whether they are active or not.

    Args:
        queries: proposals per image.
        max_batch: images that the network takes in hardly more time than one.

    Raises:
        CembenchError: for a norm that Square does not have.
    """
    search = by_norm(SEARCHES, state.ball.name, "Square")(state, generator, queries)
    rows, best = state.active, search.first[state.active]
    margin = margins(model, best, state.y[rows])
    done = state.record_success(rows, best, margin < 0)
    number, ahead, ends = torch.zeros_like(rows), 1, search.first.clone()
    while True:
        left = ~done & (number < queries)
        if not bool(left.all()):
            ends[rows] = best
            rows, best, margin, number = rows[left], best[left], margin[left], number[left]
        if len(rows) == 0:
            return ends
        ahead = min(ahead, max(1, max_batch // len(rows)))
        tried, found = _try(model, search, rows, best, number, ahead)
        improved = found < margin[:, None]
        helped, where = improved.any(1), improved.long().argmax(1)
        first = torch.arange(len(rows), device=rows.device), where
        best = torch.where(per_row(helped, best), tried[first], best)
        margin = torch.where(helped, found[first], margin)
        number = number + torch.where(helped, where + 1, ahead)
        done = state.record_success(rows, best, helped & (margin < 0))
        ahead = 2 * ahead if 2 * int(helped.sum()) < len(rows) else max(1, ahead // 2)


def _try(
    model: nn.Module, search: Search, rows: Tensor, best: Tensor, number: Tensor, ahead: int
) -> tuple[Tensor, Tensor]:
    """Return the next proposals for M images, M×A×C×H×W, and their margins; inf after the last."""
    number = (number[:, None] + torch.arange(ahead, device=rows.device)).flatten()
    if ahead > 1:
        rows, best = rows.repeat_interleave(ahead), best.repeat_interleave(ahead, 0)
    tried = search.propose(best, rows, number.clamp_max(search.queries - 1))
    found = margins(model, tried, search.state.y[rows])
    found = found.masked_fill(number >= search.queries, torch.inf)
    return tried.unflatten(0, (-1, ahead)), found.unflatten(0, (-1, ahead))


def margins(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return f_y minus the largest other logit, negative for what is misclassified."""
    out = model(x)
    own = out.gather(1, y[:, None]).squeeze(1)
    return own - out.scatter(1, y[:, None], -torch.inf).amax(1)

"""Targeted FAB (Croce and Hein, arXiv 1907.02044) that drops images once it succeeds.

FAB looks for the smallest perturbation; here only whether there is one inside the ball matters, so
an image is done at the first.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from cembench.attacks.apgd import evaluate, logit_gap
from cembench.attacks.state import RECHECK_EVERY, AttackState, ranked_targets, target_batches
from cembench.energy.norms import Ball, by_norm, per_row

OVERSHOOT = 1.05  # η
BACKWARD = 0.9  # β
MAX_PULL = 0.1  # α_max, the largest pull toward the image
NEWTON_STEPS = 40  # of the projection; about seven are needed
CHECK_EVERY = 8  # of them on a GPU, where to ask whether they were enough costs as much as a step


def targeted_fab(
    model: nn.Module, state: AttackState, *, targets: int = 9, steps: int = 100, max_batch: int
) -> None:
    """Attack toward the likeliest other classes, starting from the images themselves.

    Args:
        targets: the number of classes.
        steps: gradients per target.
        max_batch: pairs of image and target per batch.

    Raises:
        CembenchError: for a norm that FAB does not have.
    """
    with torch.no_grad():
        order = ranked_targets(state.verifier(state.x), state.y)
    for rows, ranks in target_batches(state, targets, max_batch):
        _run(model, state, rows, torch.stack([state.y[rows], order[rows, ranks]], 1), steps)


def _run(model: nn.Module, state: AttackState, rows: Tensor, target: Tensor, steps: int) -> None:
    x = centre = state.x[rows]
    y, ball = state.y[rows], state.ball
    for number in range(1, steps + 1):
        _, gap, slope = evaluate(model, logit_gap, x, target)
        x = _step(x, centre, gap, slope, ball)
        with torch.no_grad():
            wrong = model(x).argmax(1) != y
        delta = x - centre
        near = ball.size(delta) <= ball.eps + ball.tolerance
        done = state.leaving(rows, x, wrong & near, number % RECHECK_EVERY == 0)
        x = torch.where(per_row(wrong, x), centre + BACKWARD * delta, x)
        if done is not None:
            left = (~done).nonzero().squeeze(1)
            rows, target, x, centre, y = (part[left] for part in (rows, target, x, centre, y))
            if len(rows) == 0:
                return


def _step(x: Tensor, centre: Tensor, gap: Tensor, slope: Tensor, ball: Ball) -> Tensor:
    """Step onto the linearised boundary from x and from the image, and mix the two."""
    w = slope.flatten(1)
    b = (w * x.flatten(1)).sum(1) - gap
    points = torch.cat([x, centre]).flatten(1)
    moves = project(points, w.repeat(2, 1), b.repeat(2), ball.name).reshape(2, *x.shape)
    here, there = (ball.size(move).clamp_min(1e-8) for move in moves)
    pull = per_row((here / (here + there)).clamp_max(MAX_PULL), x)
    moved = (x + OVERSHOOT * moves[0]) * (1 - pull) + (centre + OVERSHOOT * moves[1]) * pull
    return moved.clamp(0, 1)


def project(points: Tensor, w: Tensor, b: Tensor, norm: str) -> Tensor:
    """Return the shortest moves, in a norm, onto {w·z = b} that stay in [0, 1].

    Where the plane does not meet the box, it is the move to the nearest corner. Points and w are
    N×D, b is N.

    Raises:
        CembenchError: for a norm that is not a key of `MOVES`.
    """
    left = (w * points).sum(1) - b
    w = torch.where(left[:, None] >= 0, w, -w)
    return by_norm(MOVES, norm, "FAB")(points, w, left.abs())


def _along_ray(points: Tensor, w: Tensor, left: Tensor, along: Tensor) -> Tensor:
    """Move all coordinates along one ray until they reach 0 or 1.

    The distance to the plane is a convex, piecewise linear function of how far: Newton's steps
    never pass its root, and stop.
    """
    limit = torch.where(along > 0, points, 1 - points) / along.abs().clamp_min(1e-12)
    rate = (w * along).abs()
    limit = torch.where(rate > 0, limit, 0)
    far = torch.zeros_like(left)
    often = CHECK_EVERY if far.is_cuda else 1
    for number in range(1, NEWTON_STEPS + 1):
        gone = torch.minimum(limit, far[:, None])
        slope = (rate * (limit > far[:, None])).sum(1)
        more = (left - (rate * gone).sum(1)) / slope
        more = torch.where(slope > 0, more.clamp_min(0), 0)
        far = far + more
        if number % often == 0 and not bool((more > 1e-7 * far).any()):
            break
    corner = (rate * limit).sum(1) <= left
    far = torch.where(corner, torch.inf, far)
    return -along * torch.minimum(limit, far[:, None])


def _steepest_first(points: Tensor, w: Tensor, left: Tensor) -> Tensor:
    """Move one coordinate after the other to 0 or 1, those with the largest |w| first."""
    rate, order = w.abs().sort(1, descending=True)
    limit = torch.where(w > 0, points, 1 - points).gather(1, order)
    gain = rate * limit
    before = gain.cumsum(1) - gain
    far = ((left[:, None] - before) / rate.clamp_min(1e-12)).clamp_min(0).minimum(limit)
    return -w.sign() * torch.empty_like(far).scatter(1, order, far)


# The move onto the plane by norm, from points, w with w·z falling toward the plane, and how far it
# has to fall.
MOVES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "linf": lambda points, w, left: _along_ray(points, w, left, w.sign()),
    "l2": lambda points, w, left: _along_ray(points, w, left, w),
    "l1": _steepest_first,
}

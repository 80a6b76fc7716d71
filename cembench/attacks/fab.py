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
from cembench.attacks.watch import Watch
from cembench.energy.ascent import staying
from cembench.energy.norms import Ball, by_norm, per_row
from cembench.util.devices import patience

OVERSHOOT = 1.05  # η
BACKWARD = 0.9  # β
MAX_PULL = 0.1  # α_max, the largest pull toward the image
NEWTON_STEPS = 40  # of the projection on a CPU, where it ends once they are enough: about seven
FIXED_STEPS = 10  # of the projection on a GPU, where to ask whether they were enough takes longer
VALUES = 2**15  # that are projected at once on a CPU, so that they stay in its cache


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
    y, ball, watch = state.y[rows], state.ball, Watch(state)
    for number in range(1, steps + 1):
        _, gap, slope = evaluate(model, logit_gap, x, target)
        x = _stepped(x, centre, gap, slope, ball)
        with torch.no_grad():
            wrong = model(x).argmax(1) != y
        delta = x - centre
        near = ball.size(delta) <= ball.eps + ball.tolerance
        due = watch.note(x, wrong & near, number % RECHECK_EVERY == 0)
        x = torch.where(per_row(wrong, x), centre + BACKWARD * delta, x)
        kept = staying(watch.look(rows)) if due or number == steps else None
        if kept is not None:
            rows, target, x, centre, y = (part[kept] for part in (rows, target, x, centre, y))
            if len(rows) == 0:
                return


def _stepped(x: Tensor, centre: Tensor, gap: Tensor, slope: Tensor, ball: Ball) -> Tensor:
    """Return the points after a step, M×C×H×W; on a CPU a few images at a time."""
    together = max(1, VALUES // x[0].numel()) if patience(x.device) == 1 else len(x)
    parts = [part.split(together) for part in (x, centre, gap, slope)]
    whole = zip(parts[0], parts[1], parts[2], parts[3], strict=True)
    return torch.cat([_step(*some, ball) for some in whole])


def _step(x: Tensor, centre: Tensor, gap: Tensor, slope: Tensor, ball: Ball) -> Tensor:
    """Step onto the linearised boundary from x and from the image, and mix the two."""
    w = slope.flatten(1)
    b = (w * x.flatten(1)).sum(1) - gap
    moves = project(torch.stack([x, centre]).flatten(2), w, b, ball.name).view(2, *x.shape)
    here, there = (ball.size(move).clamp_min(1e-8) for move in moves)
    pull = per_row((here / (here + there)).clamp_max(MAX_PULL), x)
    moved = (x + OVERSHOOT * moves[0]) * (1 - pull) + (centre + OVERSHOOT * moves[1]) * pull
    return moved.clamp(0, 1)


def project(points: Tensor, w: Tensor, b: Tensor, norm: str) -> Tensor:
    """Return the shortest moves, in a norm, onto {w·z = b} that stay in [0, 1].

    Where the plane does not meet the box, it is the move to the nearest corner. Points are …×N×D,
    w is N×D, b is N.

    Raises:
        CembenchError: for a norm that is not a key of `MOVES`.
    """
    left = (w * points).sum(-1) - b
    falling = w * torch.where(left >= 0, 1.0, -1.0)[..., None]
    return by_norm(MOVES, norm, "FAB")(points, falling, left.abs())


def _along_ray(points: Tensor, w: Tensor, left: Tensor, along: Tensor) -> Tensor:
    """Move all coordinates along one ray until they reach 0 or 1.

    How far to fall is a concave, piecewise linear function of how far to go: Newton's steps never
    pass its root, and stop. Where all coordinates reach 0 or 1 first, they go to infinity.
    """
    size = along.abs()
    rate = (w * along).abs()
    room = torch.lerp(1 - points, points, _above(along, 0))
    limit = room / size.clamp_min(1e-12) * _above(rate, 0)
    far, none = torch.zeros_like(left)[..., None], left.new_zeros(())
    checked = patience(far.device) == 1
    for _ in range(NEWTON_STEPS if checked else FIXED_STEPS):
        fallen = (rate * torch.minimum(limit, far)).sum(-1)
        slope = (rate * _above(limit, far)).sum(-1)
        more = ((left - fallen) / slope).fmax(none)[..., None]  # 0 where it is not a number
        far = far + more
        if checked and not bool((more > 1e-7 * far).any()):
            break
    return -along * torch.minimum(limit, far)


def _above(values: Tensor, edge: Tensor | float) -> Tensor:
    """Return 1 where values lie above an edge, else 0: as numbers, which a CPU handles faster."""
    return torch.gt(values, edge, out=torch.empty_like(values))


def _steepest_first(points: Tensor, w: Tensor, left: Tensor) -> Tensor:
    """Move one coordinate after the other to 0 or 1, those with the largest |w| first."""
    rate, order = w.abs().sort(-1, descending=True)
    limit = torch.lerp(1 - points, points, _above(w, 0)).gather(-1, order)
    gain = rate * limit
    before = gain.cumsum(-1) - gain
    far = ((left[..., None] - before) / rate.clamp_min(1e-12)).clamp_min(0).minimum(limit)
    return -w.sign() * torch.empty_like(far).scatter(-1, order, far)


# The move onto the plane by norm, from points, w with w·z falling toward the plane, and how far it
# has to fall.
MOVES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "linf": lambda points, w, left: _along_ray(points, w, left, w.sign()),
    "l2": lambda points, w, left: _along_ray(points, w, left, w),
    "l1": _steepest_first,
}

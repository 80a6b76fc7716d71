"""Targeted FAB (Croce and Hein, arXiv 1907.02044) that drops images as they are broken.

FAB looks for the smallest perturbation; here only whether one inside the ball exists matters, so
an image is done at the first.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cembench.attacks.survivors import AttackState, ranked, side_by_side
from cembench.attacks.verdict import TOLERANCE
from cembench.energy.ascent import Ball

OVERSHOOT = 1.05  # η
BACKWARD = 0.9  # β
TOWARD = 0.1  # the largest α, the pull toward the image
AGAIN = 10  # steps between two looks at whether what is broken bears rounding by now
NEWTON = 40  # steps of the projection; in practice about ten are needed


def targeted_fab(
    model: nn.Module, state: AttackState, *, targets: int = 9, steps: int = 100, room: int
) -> None:
    """Attack toward the likeliest other classes, starting from the images themselves.

    Args:
        model: what is attacked.
        state: the images.
        targets: how many classes.
        steps: gradients a target.
        room: how many images, each toward one target, may be moved together.
    """
    with torch.no_grad():
        order = ranked(state.judge(state.x), state.y)
    for rows, ranks in side_by_side(state, targets, room):
        _run(model, state, rows, order[rows, ranks], steps)


def _run(model: nn.Module, state: AttackState, rows: Tensor, target: Tensor, steps: int) -> None:
    x = state.x[rows]
    for number in range(1, steps + 1):
        gap, slope = _boundary(model, x, state.y[rows], target)
        x = _step(x, state.x[rows], gap, slope, state.ball)
        with torch.no_grad():
            wrong = model(x).argmax(1) != state.y[rows]
        near = state.ball.size(x - state.x[rows]) <= state.ball.eps + TOLERANCE
        done = state.claim(rows, x, wrong & near, again=number % AGAIN == 0)
        back = state.x[rows] + BACKWARD * (x - state.x[rows])
        x = torch.where(wrong.reshape(-1, 1, 1, 1), back, x)
        if bool(done.any()):
            rows, target, x = rows[~done], target[~done], x[~done]
            if len(rows) == 0:
                return


def _boundary(model: nn.Module, x: Tensor, y: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return the difference of two logits, f_t − f_y, and its gradient."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        out = model(x)
        gap = (out.gather(1, target[:, None]) - out.gather(1, y[:, None])).squeeze(1)
        (slope,) = torch.autograd.grad(gap.sum(), x)
    return gap.detach(), slope


def _step(x: Tensor, centre: Tensor, gap: Tensor, slope: Tensor, ball: Ball) -> Tensor:
    """Step onto the linearised boundary from x and from the image, and mix the two."""
    w = slope.flatten(1)
    b = (w * x.flatten(1)).sum(1) - gap
    points = torch.cat([x, centre]).flatten(1)
    moves = project(points, w.repeat(2, 1), b.repeat(2), ball.direction).reshape(2, *x.shape)
    here, there = (ball.size(move).clamp_min(1e-8) for move in moves)
    pull = (here / (here + there)).clamp_max(TOWARD).reshape(-1, 1, 1, 1)
    moved = (x + OVERSHOOT * moves[0]) * (1 - pull) + (centre + OVERSHOOT * moves[1]) * pull
    return moved.clamp(0, 1)


def project(points: Tensor, w: Tensor, b: Tensor, direction: str) -> Tensor:
    """Return the shortest moves, in the ball's norm, onto {w·z = b} that stay in [0, 1].

    All coordinates move along one direction until they reach an edge, so what is left to go is a
    convex, piecewise linear function of how far: Newton's steps never pass its root, and stop.

    Args:
        points: N×D in [0, 1].
        w: N×D.
        b: N.
        direction: `sign` for ℓ∞, `l2` for ℓ2.

    Returns:
        N×D; where the plane does not meet the box, the move to the nearest corner.
    """
    left = (w * points).sum(1) - b
    w = torch.where(left[:, None] >= 0, w, -w)
    along = w.sign() if direction == "sign" else w
    room = torch.where(along > 0, points, 1 - points) / along.abs().clamp_min(1e-12)
    rate = (w * along).abs()
    room = torch.where(rate > 0, room, 0)
    left, far = left.abs(), torch.zeros_like(left)
    for _ in range(NEWTON):
        gone = torch.minimum(room, far[:, None])
        slope = (rate * (room > far[:, None])).sum(1)
        more = (left - (rate * gone).sum(1)) / slope
        more = torch.where(slope > 0, more.clamp_min(0), 0)
        far = far + more
        if not bool((more > 1e-7 * far).any()):
            break
    corner = (rate * room).sum(1) <= left
    far = torch.where(corner, torch.inf, far)
    return -along * torch.minimum(room, far[:, None])

"""APGD (Croce and Hein, arXiv 2003.01690, algorithm 1) that drops images as they are broken."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from cembench.attacks.survivors import AttackState, ranked, side_by_side
from cembench.energy.ascent import DIRECTIONS, L2, Ball, unit
from cembench.energy.potentials import Potential, cross_entropy

MOMENTUM = 0.75
AGAIN = 10  # steps between two looks at whether what is broken bears rounding by now
RISING = 0.75  # ρ: a step that raises the loss less often than this is halved


def targeted_ratio(out: Tensor, target: Tensor) -> Tensor:
    """Return the targeted DLR loss: N×K logits with K ≥ 4; N×2 labels and targets."""
    own, other = out.gather(1, target).unbind(1)
    top = out.sort(1).values
    return (other - own) / (top[:, -1] - (top[:, -3] + top[:, -4]) / 2 + 1e-12)


def ratio(out: Tensor, y: Tensor) -> Tensor:
    """Return the DLR loss: N×K logits with K ≥ 3, N labels."""
    top, order = out.sort(1)
    own = out.gather(1, y[:, None]).squeeze(1)
    other = torch.where(order[:, -1] == y, top[:, -2], top[:, -1])
    return (other - own) / (top[:, -1] - top[:, -3] + 1e-12)


def apgd(
    model: nn.Module,
    state: AttackState,
    potential: Potential = cross_entropy,
    *,
    steps: int = 100,
    generator: torch.Generator,
) -> None:
    """Attack from one random start."""
    rows = state.rows
    start = starts(state.x, state.ball, generator)[rows]
    _climb(model, state, rows, potential, state.y[rows], start, steps)


def targeted_apgd(
    model: nn.Module,
    state: AttackState,
    *,
    targets: int = 9,
    steps: int = 100,
    room: int,
    generator: torch.Generator,
) -> None:
    """Attack toward the likeliest other classes, each from a random start of its own.

    Args:
        targets: how many.
        steps: gradients a target.
        room: how many images, each toward one target, may be climbed together.
        generator: draws the starts, the same ones whatever is climbed together.
    """
    with torch.no_grad():
        order = ranked(state.judge(state.x), state.y)
    for rows, ranks in side_by_side(state, targets, room):
        target = torch.stack([state.y[rows], order[rows, ranks]], 1)
        own = [rows[ranks == rank] for rank in ranks.unique()]
        start = torch.cat([starts(state.x, state.ball, generator)[some] for some in own])
        _climb(model, state, rows, targeted_ratio, target, start, steps)


def starts(x: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
    """Return random points on the surface of the balls around x, cut to [0, 1]."""
    if isinstance(ball, L2):
        step = unit(torch.randn(x.shape, generator=generator, device=x.device))
    else:
        step = 2 * torch.rand(x.shape, generator=generator, device=x.device) - 1
        step = step / step.flatten(1).abs().amax(1).reshape(-1, 1, 1, 1)
    return (x + ball.eps * step).clamp(0, 1)


@dataclass(frozen=True)
class _Chains:
    """M climbs: where they are, where they were best, and how well the step size does."""

    row: Tensor
    target: Tensor
    centre: Tensor
    x: Tensor
    before: Tensor
    loss: Tensor
    gradient: Tensor
    best: Tensor
    best_loss: Tensor
    best_gradient: Tensor
    checked_loss: Tensor
    rises: Tensor
    halved: Tensor
    step: Tensor

    def kept(self, mask: Tensor) -> _Chains:
        """Return some of them."""
        return _Chains(**{key: value[mask] for key, value in vars(self).items()})

    def moved(self, ball: Ball, momentum: float) -> _Chains:
        """Take a step with momentum."""
        point = DIRECTIONS[ball.direction]
        there = ball.project(self.x + self.step * point(self.gradient), self.centre)
        there = self.x + (there - self.x) * momentum + (self.x - self.before) * (1 - momentum)
        return replace(self, x=ball.project(there, self.centre), before=self.x)

    def judged(self, loss: Tensor, gradient: Tensor, last: Tensor) -> _Chains:
        """Take in loss and gradient at the new place; `last` is the loss to have risen from."""
        better = loss > self.best_loss
        wide = better.reshape(-1, 1, 1, 1)
        return replace(
            self,
            loss=loss,
            gradient=gradient,
            best=torch.where(wide, self.x, self.best),
            best_loss=torch.where(better, loss, self.best_loss),
            best_gradient=torch.where(wide, gradient, self.best_gradient),
            rises=self.rises + (loss > last),
        )

    def checked(self, steps: int) -> _Chains:
        """Halve steps that rose too seldom in the last `steps`, and go back to the best place."""
        stuck = ~self.halved & (self.checked_loss >= self.best_loss)
        halve = (self.rises <= steps * RISING) | stuck
        wide = halve.reshape(-1, 1, 1, 1)
        return replace(
            self,
            x=torch.where(wide, self.best, self.x),
            gradient=torch.where(wide, self.best_gradient, self.gradient),
            step=torch.where(wide, self.step / 2, self.step),
            halved=halve,
            checked_loss=self.best_loss,
            rises=torch.zeros_like(self.rises),
        )


def _climb(
    model: nn.Module,
    state: AttackState,
    rows: Tensor,
    potential: Potential,
    target: Tensor,
    x: Tensor,
    steps: int,
) -> None:
    """Climb from x (M×C×H×W) and claim what is misclassified on the way."""
    interval, shorter, shortest = (max(1, int(share * steps)) for share in (0.22, 0.03, 0.06))
    check = interval
    out, loss, gradient = _look(model, potential, x, target)
    done = state.claim(rows, x, out.argmax(1) != state.y[rows])
    chains = _begun(state, rows, target, x, loss, gradient).kept(~done)
    for number in range(1, steps + 1):
        if len(chains.row) == 0:
            return
        chains = chains.moved(state.ball, MOMENTUM if number > 1 else 1.0)
        out, loss, gradient = _look(model, potential, chains.x, chains.target)
        # The official code compares the first loss with an empty log, which holds zeros.
        last = chains.loss if number > 1 else torch.zeros_like(loss)
        chains = chains.judged(loss, gradient, last)
        wrong = out.argmax(1) != state.y[chains.row]
        done = state.claim(chains.row, chains.x, wrong, again=number % AGAIN == 0)
        if number == check:
            chains = chains.checked(interval)
            interval = max(interval - shorter, shortest)
            check += interval
        if bool(done.any()):
            chains = chains.kept(~done)


def _begun(
    state: AttackState, rows: Tensor, target: Tensor, x: Tensor, loss: Tensor, gradient: Tensor
) -> _Chains:
    return _Chains(
        row=rows,
        target=target,
        centre=state.x[rows],
        x=x,
        before=x,
        loss=loss,
        gradient=gradient,
        best=x,
        best_loss=loss,
        best_gradient=gradient,
        checked_loss=loss,
        rises=torch.zeros_like(rows),
        halved=torch.ones_like(rows, dtype=torch.bool),
        step=torch.full_like(loss, 2 * state.ball.eps).reshape(-1, 1, 1, 1),
    )


def _look(
    model: nn.Module, potential: Potential, x: Tensor, target: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        out = model(x)
        value = potential(out, target)
        (gradient,) = torch.autograd.grad(value.sum(), x)
    return out.detach(), value.detach(), gradient

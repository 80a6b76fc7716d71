"""APGD (Croce and Hein, arXiv 2003.01690, algorithm 1) that drops images once it succeeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from cembench.attacks.state import RECHECK_EVERY, AttackState, ranked_targets, target_batches
from cembench.energy.ascent import gradient_of
from cembench.energy.norms import Ball, per_row
from cembench.energy.potentials import Potential, cross_entropy

MOMENTUM = 0.75
MIN_RISES = 0.75  # ρ: the step size is halved if the loss rises in a smaller fraction of steps


def logit_gap(out: Tensor, pair: Tensor) -> Tensor:
    """Return f_t − f_y per row: N×K logits, N×2 labels and targets."""
    own, other = out.gather(1, pair).unbind(1)
    return other - own


def targeted_dlr(out: Tensor, target: Tensor) -> Tensor:
    """Return the targeted DLR loss: N×K logits with K ≥ 4; N×2 labels and targets."""
    top = out.sort(1).values
    return logit_gap(out, target) / (top[:, -1] - (top[:, -3] + top[:, -4]) / 2 + 1e-12)


def apgd(
    model: nn.Module,
    state: AttackState,
    potential: Potential = cross_entropy,
    *,
    steps: int = 100,
    generator: torch.Generator,
) -> None:
    """Attack from one random start, which is drawn for all images, active or not.

    Args:
        potential: the loss to maximise, of logits N×K and labels N.
        steps: number of gradients.

    Raises:
        CembenchError: for a norm that APGD does not have.
    """
    rows = state.active
    start = state.ball.surface(state.x, generator)[rows]
    _maximise(model, state, rows, potential, state.y[rows], start, steps)


def targeted_apgd(
    model: nn.Module,
    state: AttackState,
    *,
    targets: int = 9,
    first: int = 0,
    steps: int = 100,
    max_batch: int,
    generator: torch.Generator,
) -> None:
    """Attack toward the likeliest other classes, each from a random start of its own.

    Args:
        targets: the number of classes.
        first: how many of them are left out, the likeliest.
        steps: gradients per target.
        max_batch: pairs of image and target per batch; the starts do not depend on it.

    Raises:
        CembenchError: for a norm that APGD does not have.
    """
    with torch.no_grad():
        order = ranked_targets(state.verifier(state.x), state.y)
    for rows, ranks in target_batches(state, targets, max_batch, first):
        target = torch.stack([state.y[rows], order[rows, ranks]], 1)
        per_target = [rows[ranks == rank] for rank in ranks.unique()]
        start = torch.cat([state.ball.surface(state.x, generator)[some] for some in per_target])
        _maximise(model, state, rows, targeted_dlr, target, start, steps)


@dataclass(frozen=True)
class _Runs:
    """M runs of APGD: the current iterates, the best ones, and how well the step size does.

    Attributes:
        onto_ball: the projection onto the balls around the images.
    """

    row: Tensor
    y: Tensor
    target: Tensor
    centre: Tensor
    x: Tensor
    previous: Tensor
    loss: Tensor
    gradient: Tensor
    best: Tensor
    best_loss: Tensor
    best_gradient: Tensor
    checked_loss: Tensor
    rises: Tensor
    halved: Tensor
    step: Tensor
    onto_ball: Callable[[Tensor], Tensor]

    def select(self, mask: Tensor, ball: Ball) -> _Runs:
        """Return some of the runs."""
        kept = mask.nonzero().squeeze(1)
        values = {k: value[kept] for k, value in vars(self).items() if isinstance(value, Tensor)}
        return _Runs(**values, onto_ball=ball.projection(values["centre"]))

    def advance(self, towards: Callable[[Tensor], Tensor], momentum: float) -> _Runs:
        """Take a step with momentum."""
        there = self.onto_ball(self.x + self.step * towards(self.gradient))
        if momentum < 1:
            there = self.x + (there - self.x) * momentum + (self.x - self.previous) * (1 - momentum)
        return replace(self, x=self.onto_ball(there), previous=self.x)

    def update(self, loss: Tensor, gradient: Tensor, last: Tensor) -> _Runs:
        """Take in loss and gradient at the new iterate; `last` is the loss to have risen from."""
        better = loss > self.best_loss
        wide = per_row(better, self.x)
        return replace(
            self,
            loss=loss,
            gradient=gradient,
            best=torch.where(wide, self.x, self.best),
            best_loss=torch.maximum(loss, self.best_loss),
            best_gradient=torch.where(wide, gradient, self.best_gradient),
            rises=self.rises + (loss > last),
        )

    def adapt_step(self, steps: int) -> _Runs:
        """Halve the step size and return to the best iterate where the loss rose too rarely."""
        stuck = ~self.halved & (self.checked_loss >= self.best_loss)
        halve = (self.rises <= steps * MIN_RISES) | stuck
        wide = per_row(halve, self.x)
        return replace(
            self,
            x=torch.where(wide, self.best, self.x),
            gradient=torch.where(wide, self.best_gradient, self.gradient),
            step=torch.where(wide, self.step / 2, self.step),
            halved=halve,
            checked_loss=self.best_loss,
            rises=torch.zeros_like(self.rises),
        )


def _maximise(
    model: nn.Module,
    state: AttackState,
    rows: Tensor,
    potential: Potential,
    target: Tensor,
    x: Tensor,
    steps: int,
) -> None:
    """Maximise a potential from x (M×C×H×W) and record what is misclassified on the way."""
    interval, shorter, shortest = (max(1, int(part * steps)) for part in (0.22, 0.03, 0.06))
    check = interval
    out, loss, gradient = evaluate(model, potential, x, target)
    runs = _started(state, rows, target, x, loss, gradient)
    done = state.leaving(rows, x, out.argmax(1) != runs.y)
    runs = runs if done is None else runs.select(~done, state.ball)
    for number in range(1, steps + 1):
        if len(runs.row) == 0:
            return
        runs = runs.advance(state.ball.steepest, MOMENTUM if number > 1 else 1.0)
        out, loss, gradient = evaluate(model, potential, runs.x, runs.target)
        # The official code compares the first loss with an empty log, which holds zeros.
        last = runs.loss if number > 1 else torch.zeros_like(loss)
        runs = runs.update(loss, gradient, last)
        wrong = out.argmax(1) != runs.y
        done = state.leaving(runs.row, runs.x, wrong, number % RECHECK_EVERY == 0)
        if number == check:
            runs = runs.adapt_step(interval)
            interval = max(interval - shorter, shortest)
            check += interval
        if done is not None:
            runs = runs.select(~done, state.ball)


def _started(
    state: AttackState, rows: Tensor, target: Tensor, x: Tensor, loss: Tensor, gradient: Tensor
) -> _Runs:
    centre = state.x[rows]
    return _Runs(
        row=rows,
        y=state.y[rows],
        target=target,
        centre=centre,
        x=x,
        previous=x,
        loss=loss,
        gradient=gradient,
        best=x,
        best_loss=loss,
        best_gradient=gradient,
        checked_loss=loss,
        rises=torch.zeros_like(rows),
        halved=torch.ones_like(rows, dtype=torch.bool),
        step=torch.full_like(loss, 2 * state.ball.eps).reshape(-1, 1, 1, 1),
        onto_ball=state.ball.projection(centre),
    )


def evaluate(
    model: nn.Module, potential: Potential, x: Tensor, target: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits, values of a potential, and its gradient at x, N×C×H×W."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        out = model(x)
        value = potential(out, target)
        gradient = gradient_of(value, x)
    return out.detach(), value.detach(), gradient

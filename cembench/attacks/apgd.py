"""APGD (Croce and Hein, arXiv 2003.01690, algorithm 1) that drops images once it succeeds."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cembench.attacks.apgd_runs import RUNS, Runs
from cembench.attacks.state import RECHECK_EVERY, AttackState, ranked_targets, target_batches
from cembench.attacks.watch import Watch
from cembench.energy.ascent import gradient_of, staying
from cembench.energy.norms import Ball, by_norm
from cembench.energy.potentials import Potential, cross_entropy


def runs_of(norm: str) -> type[Runs]:
    """Return how APGD steps in a norm, with the number of restarts and targets.

    Raises:
        CembenchError: for a norm that APGD does not have.
    """
    return by_norm(RUNS, norm, "APGD")


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
    """Attack from random starts, which are drawn for all images, active or not.

    Args:
        potential: the loss to maximise, of logits N×K and labels N.
        steps: number of gradients.

    Raises:
        CembenchError: for a norm that APGD does not have.
    """
    kind = runs_of(state.ball.name)
    (widest, _), *_ = kind.balls(state.ball, steps)
    for _ in range(kind.restarts):
        rows = state.active
        start = widest.surface(state.x, generator)[rows]
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
    (widest, _), *_ = runs_of(state.ball.name).balls(state.ball, steps)
    with torch.no_grad():
        order = ranked_targets(state.verifier(state.x), state.y)
    for rows, ranks in target_batches(state, targets, max_batch, first):
        target = torch.stack([state.y[rows], order[rows, ranks]], 1)
        per_target = [rows[ranks == rank] for rank in ranks.unique()]
        start = torch.cat([widest.surface(state.x, generator)[some] for some in per_target])
        _maximise(model, state, rows, targeted_dlr, target, start, steps)


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
    kind = runs_of(state.ball.name)
    for number, (ball, count) in enumerate(kind.balls(state.ball, steps)):
        x = ball.project(x, state.x[rows]) if number else x
        x = _climb(model, state, ball, rows, potential, target, x, count)


def _climb(
    model: nn.Module,
    state: AttackState,
    ball: Ball,
    rows: Tensor,
    potential: Potential,
    target: Tensor,
    x: Tensor,
    steps: int,
) -> Tensor:
    """Take the steps in one ball, and return the best iterates of the runs that are left.

    None of them leaves in a larger ball than that of the attack.
    """

    watch = Watch(state)

    def left(found: Runs, out: Tensor, number: int) -> Runs:
        if ball != state.ball:
            state.require_running()
            return found
        wrong = out.argmax(1) != found.y
        if not watch.note(found.x, wrong, number % RECHECK_EVERY == 0) and number < steps:
            return found
        kept = staying(watch.look(found.row))
        return found if kept is None else found.select(kept)

    out, loss, gradient = evaluate(model, potential, x, target)
    begun = ball, rows, state.y[rows], target, state.x[rows], x, loss, gradient
    runs = left(runs_of(state.ball.name).begin(*begun), out, 0)
    checks = runs.checks(steps)
    for number in range(1, steps + 1):
        if len(runs.row) == 0:
            break
        runs = runs.advance(number)
        out, loss, gradient = evaluate(model, potential, runs.x, runs.target)
        runs = left(runs.update(loss, gradient, number), out, number)
        if number in checks:
            runs = runs.adapt(checks[number])
    return runs.best


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

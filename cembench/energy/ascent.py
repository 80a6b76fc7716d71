"""Gradient ascent on a potential: the one loop behind every attack and sampler.

x ← project(x + α · direction(∇ₓ potential) + σ · noise)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from cembench.energy.norms import NORMS, Ball, per_row
from cembench.util.errors import CembenchError, NoGradientError, said
from cembench.util.processes.meeting import LostProcessError
from cembench.util.rng import normal

ROUNDING = 1e-4  # in units of 1/255: float32 rounding must not cost a perturbation a whole level

Visit = Callable[[int, Tensor, Tensor, Tensor], Tensor | None]


class Constraint(Protocol):
    """What images have to satisfy: that they lie in a ball, or that some pixels are known."""

    def projection(self, centre: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the function that makes images satisfy it, around or as these N×C×H×W."""


def usual_step(eps: float, steps: int) -> float:
    """Return the step with which so many reach the surface of a ball 2.5 times over.

    Source: Madry et al., arXiv 1706.06083, section 5.
    """
    return 2.5 * eps / steps


def to_bytes(proposed: Tensor, x: Tensor, ball: Ball) -> Tensor:
    """Round to multiples of 1/255 toward the clean image, itself rounded to that grid first.

    The result lies in the ball around the rounded clean image, so it survives an 8-bit file.
    """
    grid = (x * 255).round()
    levels = ball.project(proposed, grid / 255) * 255 - grid
    rounded = (grid + levels.sign() * (levels.abs() + ROUNDING).floor()) / 255
    outside = ball.size(rounded - grid / 255) > ball.eps + ball.tolerance
    return torch.where(per_row(outside, x), (grid + levels.trunc()) / 255, rounded)


# From the gradient, and the images at which it was taken, to the step of length 1.
DIRECTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "raw": lambda gradient, at: gradient,
    **{norm.direction: norm.steepest for norm in NORMS.values()},
}


def ascend(
    forward: Callable[[Tensor], Tensor],
    potential: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    target: Tensor,
    *,
    steps: int,
    step_size: float,
    direction: str = "raw",
    ball: Constraint | None = None,
    centre: Tensor | None = None,
    noise: float = 0.0,
    generator: torch.Generator | None = None,
    momentum: float = 0.0,
    visit: Visit | None = None,
) -> Tensor:
    """Maximise a potential by gradient steps.

    Args:
        forward: images to outputs, such as logits.
        potential: outputs and target to one value per row.
        x: the initial images, N×C×H×W.
        target: what the potential needs besides outputs, one entry per row.
        steps: number of gradients.
        step_size: α, in pixels on [0, 1].
        direction: a key of `DIRECTIONS`.
        ball: x is projected onto it around `centre` after each step; not at all if None. Any other
            constraint will do.
        centre: N×C×H×W, needed with a ball.
        noise: σ of the Gaussian noise added in each step.
        generator: the source of that noise.
        momentum: μ; steps follow g ← μ g + ∇/‖∇‖₁ in place of ∇ (MI-FGSM, arXiv 1710.06081).
        visit: called as visit(step, rows, x, out) at every iterate, the last one included (which
            costs one more forward pass); `rows` are the indices of x's rows among the initial
            images. It may return a mask of rows that are done: they keep their x and leave the
            batch, which a coupled potential refuses.

    Returns:
        The last iterate of each row, detached.

    Raises:
        NoGradientError: when autograd finds none.
    """
    result = x.detach().clone()
    rows = torch.arange(len(x), device=x.device)
    towards = DIRECTIONS[direction]
    project = _projection(ball, centre)
    followed: Tensor | None = None
    for step in range(steps + (visit is not None)):
        last = step == steps
        with torch.set_grad_enabled(not last):
            x = x.detach().requires_grad_(not last)
            out = forward(x)
        done = visit(step, rows, x.detach(), out.detach()) if visit is not None else None
        keep = None if last else staying(done)
        if last or (keep is not None and len(keep) == 0):
            break
        if keep is not None and getattr(potential, "coupled", False):
            raise ValueError("rows of a coupled potential belong together: none may leave")
        with torch.enable_grad():
            value = potential(_kept(out, keep), _kept(target, keep))
            gradient = gradient_of(value, x)
        if keep is not None:
            result[rows] = x.detach()
            rows, target, gradient = rows[keep], target[keep], gradient[keep]
            centre = None if centre is None else centre[keep]
            project = _projection(ball, centre)
        x = _kept(x.detach(), keep)
        if momentum:
            before = 0 if followed is None else momentum * _kept(followed, keep)
            length = per_row(gradient.flatten(1).norm(p=1, dim=1), gradient).clamp_min(1e-12)
            gradient = followed = before + gradient / length
        x = x + step_size * towards(gradient, x)
        if noise:
            assert generator is not None
            x = x + noise * normal(x.shape, generator)
        x = project(x)
    result[rows] = x.detach()
    return result


def staying(done: Tensor | None) -> Tensor | None:
    """Return the indices of the rows that are not done; None for all of them."""
    if done is None:
        return None
    kept = (~done).nonzero().squeeze(1)
    return None if len(kept) == len(done) else kept


def gradient_of(value: Tensor, x: Tensor) -> Tensor:
    """Return the gradient of the sum of values at the images x, of the shape of x.

    Raises:
        NoGradientError: when autograd finds none, or fails. A gradient of zeros is one.
    """
    found: Tensor | None = None
    try:
        if value.requires_grad:
            (found,) = torch.autograd.grad(value.sum(), x, allow_unused=True)
    except (CembenchError, LostProcessError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise NoGradientError(f"its backward pass raised {said(error)}") from error
    if found is None:
        raise NoGradientError("autograd finds no path from its outputs back to the images")
    return found


def _projection(ball: Constraint | None, centre: Tensor | None) -> Callable[[Tensor], Tensor]:
    if ball is None:
        return lambda x: x
    assert centre is not None
    return ball.projection(centre)


def _kept(tensor: Tensor, keep: Tensor | None) -> Tensor:
    return tensor if keep is None else tensor.index_select(0, keep)

"""The one loop behind every attack and sampler, and the balls they stay in.

x ← project(x + α · direction(∇ₓ potential) + σ · noise)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cembench.util.rng import normal, uniform

ROUNDING = 1e-4  # in units of 1/255: float32 rounding must not cost a perturbation a whole level

Visit = Callable[[int, Tensor, Tensor, Tensor], Tensor | None]


@dataclass(frozen=True)
class Linf:
    """All images whose pixels differ by at most eps from the centre's."""

    eps: float
    direction = "sign"

    def project(self, x: Tensor, centre: Tensor) -> Tensor:
        """Clip each pixel."""
        return torch.minimum(torch.maximum(x, centre - self.eps), centre + self.eps).clamp(0, 1)

    def uniform(self, centre: Tensor, generator: torch.Generator) -> Tensor:
        """Draw each pixel."""
        draw = uniform(centre.shape, generator)
        return (centre + (2 * draw - 1) * self.eps).clamp(0, 1)

    def size(self, delta: Tensor) -> Tensor:
        """Return the largest change of a pixel."""
        return delta.abs().flatten(1).amax(1)


@dataclass(frozen=True)
class L2:
    """All images within Euclidean distance eps of the centre."""

    eps: float
    direction = "l2"

    def project(self, x: Tensor, centre: Tensor) -> Tensor:
        """Scale the difference back; cutting to [0, 1] afterwards only shortens it."""
        delta = x - centre
        shrink = (self.eps / _rows(self.size(delta), delta).clamp_min(1e-12)).clamp_max(1)
        return (centre + delta * shrink).clamp(0, 1)

    def uniform(self, centre: Tensor, generator: torch.Generator) -> Tensor:
        """Draw a direction, and a radius that makes the volume uniform."""
        delta = unit(normal(centre.shape, generator))
        share = uniform((len(centre),), generator)
        radius = share ** (1 / centre[0].numel())
        return (centre + self.eps * _rows(radius, delta) * delta).clamp(0, 1)

    def size(self, delta: Tensor) -> Tensor:
        """Return the Euclidean norm."""
        return delta.flatten(1).norm(dim=1)


Ball = Linf | L2


BALLS: dict[str, type[Linf] | type[L2]] = {"linf": Linf, "l2": L2}


def to_bytes(proposed: Tensor, x: Tensor, ball: Ball) -> Tensor:
    """Round to multiples of 1/255 toward the clean image, itself rounded to that grid first.

    The result lies in the ball around the rounded clean image, so it survives an 8-bit file.
    """
    grid = (x * 255).round()
    levels = ball.project(proposed, grid / 255) * 255 - grid
    steps = levels.sign() * (levels.abs() + ROUNDING).floor()
    return (grid + steps) / 255


def unit(gradient: Tensor) -> Tensor:
    """Scale each row to Euclidean length 1; a zero row stays zero."""
    return gradient / _rows(gradient.flatten(1).norm(dim=1), gradient).clamp_min(1e-12)


DIRECTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sign": torch.sign,
    "l2": unit,
    "raw": lambda gradient: gradient,
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
    ball: Ball | None = None,
    centre: Tensor | None = None,
    noise: float = 0.0,
    generator: torch.Generator | None = None,
    visit: Visit | None = None,
) -> Tensor:
    """Climb a potential.

    Args:
        forward: images to outputs, such as logits.
        potential: outputs and target to one value a row.
        x: where to start, N×C×H×W.
        target: what the potential is told, one entry a row.
        steps: number of gradients.
        step_size: α, in pixels on [0, 1].
        direction: a key of `DIRECTIONS`.
        ball: where x must stay around `centre`; anywhere if None.
        centre: N×C×H×W, needed with a ball.
        noise: σ of the Gaussian noise added in each step.
        generator: the source of that noise.
        visit: called as visit(step, rows, x, out) at every iterate, the last one included (which
            costs one forward pass more); `rows` are the indices of x's rows in the start. It may
            return a mask of rows that are done: they keep their x and leave the batch, which a
            coupled potential refuses.

    Returns:
        The last iterate of each row, detached.
    """
    result = x.detach().clone()
    rows = torch.arange(len(x), device=x.device)
    point = DIRECTIONS[direction]
    for step in range(steps + (visit is not None)):
        last = step == steps
        with torch.set_grad_enabled(not last):
            x = x.detach().requires_grad_(not last)
            out = forward(x)
        done = visit(step, rows, x.detach(), out.detach()) if visit is not None else None
        if last or (done is not None and bool(done.all())):
            break
        keep = None if done is None or not bool(done.any()) else ~done
        if keep is not None and getattr(potential, "coupled", False):
            raise ValueError("rows of a coupled potential belong together: none may leave")
        with torch.enable_grad():
            value = potential(out if keep is None else out[keep], _kept(target, keep))
            (gradient,) = torch.autograd.grad(value.sum(), x)
        if keep is not None:
            result[rows[~keep]] = x.detach()[~keep]
            rows, target, gradient = rows[keep], target[keep], gradient[keep]
            centre = None if centre is None else centre[keep]
        x = _kept(x.detach(), keep) + step_size * point(gradient)
        if noise:
            assert generator is not None
            x = x + noise * normal(x.shape, generator)
        if ball is not None:
            assert centre is not None
            x = ball.project(x, centre)
    result[rows] = x.detach()
    return result


def _kept(tensor: Tensor, keep: Tensor | None) -> Tensor:
    return tensor if keep is None else tensor[keep]


def _rows(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *(1,) * (like.dim() - 1))

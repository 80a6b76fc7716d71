"""Operations of a loop, and how often it waits for the device, without those of the network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from cembench.bench.calls import Calls


class Unseen(nn.Module):
    """A network whose operations, forward and backward, are not counted."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs."""
        return _Pass.apply(x, self.model)


class _Pass(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, model: nn.Module) -> Tensor:
        with _disable_current_modes(), torch.enable_grad():
            ctx.x = x.detach().requires_grad_()
            ctx.out = model(ctx.x)
            return ctx.out.detach()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        with _disable_current_modes():
            return torch.autograd.grad(ctx.out, ctx.x, slope)[0], None


def a_step(run: Callable[[int], Any], few: int, many: int) -> tuple[float, float]:
    """Return operations and waits of a step: what a longer run takes more, a step more."""
    counts = []
    for steps in (few, many):
        with Calls() as counted:
            run(steps)
        counts.append((counted.operations, counted.synchronisations))
    (operations, waits), (more_operations, more_waits) = counts
    return (more_operations - operations) / (many - few), (more_waits - waits) / (many - few)

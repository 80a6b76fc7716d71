"""Batch norm over the batches of all processes, on any device; torch's own needs a GPU."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class SynchronisedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm with the batch statistics of all processes, whose batches have equal sizes."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise N×C×H×W."""
        if not self.training:
            return super().forward(x)
        values = x.float()
        mean = _Mean.apply(values.mean((0, 2, 3)))
        apart = values - mean[:, None, None]
        variance = _Mean.apply(apart.square().mean((0, 2, 3)))
        self._remember(mean.detach(), variance.detach(), values.numel() // values.shape[1])
        out = apart * (variance + self.eps).rsqrt()[:, None, None]
        return (out * self.weight[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: int) -> None:
        whole = count * dist.get_world_size()
        assert self.running_mean is not None and self.running_var is not None
        assert self.momentum is not None and self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * whole / max(1, whole - 1), self.momentum)


class _Mean(torch.autograd.Function):
    """Mean over processes, with the mean of the gradients as its gradient."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        """Return the mean."""
        total = x.clone()
        dist.all_reduce(total)
        return total / dist.get_world_size()

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        """Return the mean gradient, by the same function, so that it is differentiable too."""
        mean: Tensor = _Mean.apply(gradients[0])
        return mean


def synchronise(model: nn.Module) -> None:
    """Make every batch norm of a network use the batches of all processes; weights stay."""
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SynchronisedBatchNorm2d

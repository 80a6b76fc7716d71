"""Batch norm over the batches of all processes, on any device; torch's own needs a GPU."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from cembench.util.processes.collectives import sum_of_all


class SynchronisedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm with the batch statistics of all processes, whose batches have equal sizes."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise N×C×H×W."""
        if not self.training:
            return super().forward(x)
        values = x.float()
        mean = self._mean(values)
        apart = values - mean[:, None, None]
        variance = self._mean(apart.square())
        self._remember(mean.detach(), variance.detach(), values.numel() // values.shape[1])
        out = apart * (variance + self.eps).rsqrt()[:, None, None]
        return (out * self.weight[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    @staticmethod
    def _mean(values: Tensor) -> Tensor:
        return sum_of_all(values.mean((0, 2, 3))) / dist.get_world_size()

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: int) -> None:
        whole = count * dist.get_world_size()
        assert self.running_mean is not None and self.running_var is not None
        assert self.momentum is not None and self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * whole / max(1, whole - 1), self.momentum)


def synchronise(model: nn.Module) -> None:
    """Make every batch norm of a network use the batches of all processes; weights stay."""
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SynchronisedBatchNorm2d

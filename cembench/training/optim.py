"""Optimizer, learning-rate schedule and weight average of torch, built from settings."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cembench.training.sections import Optimizer, Schedule


def build_optimizer(settings: Optimizer, model: nn.Module) -> torch.optim.Optimizer:
    """Return SGD or AdamW over all parameters."""
    decay, fused = settings.weight_decay, fusible(model)
    if settings.name == "adamw":
        return torch.optim.AdamW(
            model.parameters(), lr=settings.lr, weight_decay=decay, fused=fused
        )
    return torch.optim.SGD(
        model.parameters(),
        lr=settings.lr,
        momentum=settings.momentum,
        weight_decay=decay,
        nesterov=settings.nesterov,
        fused=fused,
    )


def fusible(model: nn.Module) -> bool:
    """Return whether the fused optimizer is used: on GPUs.

    On a CPU it would halve an update that is hundreds of times shorter than the rest of a step, and
    round differently from the loop over tensors that published tables were made with.
    """
    return all(parameter.is_cuda for parameter in model.parameters())


def build_scheduler(
    settings: Schedule, optimizer: torch.optim.Optimizer, epochs: int, steps: int
) -> LambdaLR:
    """Return a schedule that changes with every step; `steps` is the number of steps per epoch.

    A step has the rate at its middle, so that no step has a rate of zero.
    """
    shape = learning_rate_factor(settings, epochs)
    return LambdaLR(optimizer, lambda step: shape((step + 0.5) / steps))


def scale_learning_rate(
    optimizer: torch.optim.Optimizer, scheduler: LambdaLR, factor: float
) -> None:
    """Multiply the learning rate of the next step and of all later ones."""
    scheduler.base_lrs = [rate * factor for rate in scheduler.base_lrs]
    for group in optimizer.param_groups:
        group["lr"] *= factor


def learning_rate_factor(settings: Schedule, epochs: int) -> Callable[[float], float]:
    """Return the factor of the learning rate as a function of the epoch, a fractional number."""

    def factor(epoch: float) -> float:
        share = min(epoch / epochs, 1.0)
        if settings.name == "cosine":
            return 0.5 * (1 + math.cos(math.pi * share))
        if settings.name == "one-cycle":
            rising = share < settings.peak
            return share / settings.peak if rising else (1 - share) / (1 - settings.peak)
        if settings.name == "multistep":
            return settings.gamma ** bisect.bisect_right(sorted(settings.milestones), epoch)
        return 1.0

    return factor


def build_average(model: nn.Module, decay: float) -> AveragedModel | None:
    """Return an exponential moving average of weights and buffers; None for decay 0."""
    if decay == 0:
        return None
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    average.n_averaged = average.n_averaged.cpu()  # which is read in every step
    return average

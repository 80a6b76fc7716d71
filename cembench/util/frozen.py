"""Frozen models, restored afterwards; copies of models; deterministic convolutions."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal

import torch
from torch import Tensor, nn


@contextmanager
def frozen(model: nn.Module, mode: Literal["eval", "train"] = "eval") -> Iterator[None]:
    """Put a model in a mode with parameters that take no gradients; afterwards restore all of it.

    Restored are every module's own mode (a frozen layer stays frozen), `requires_grad` and the
    gradient of every parameter, and the values of buffers, such as batch-norm statistics.
    """
    modes = [(module, module.training) for module in model.modules()]
    parameters = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    model.train(mode == "train")
    model.requires_grad_(False)
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, requires, gradient in parameters:
            parameter.requires_grad_(requires).grad = gradient
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)


def copied(model: nn.Module) -> nn.Module | None:
    """Return a copy of a model that shares nothing with it; None where it cannot be copied."""
    try:
        found = copy.deepcopy(model)
    except Exception:  # of locks, generators, what lies in another process, or too little memory
        return None
    return None if _memory(model) & _memory(found) else found


def _memory(model: nn.Module) -> set[int]:
    """Return where its parameters and buffers lie."""
    kept = itertools.chain(model.parameters(), model.buffers())
    return {tensor.data_ptr() for tensor in kept if tensor.numel() and not tensor.is_meta}


def exact() -> AbstractContextManager[None]:
    """Compute convolutions in full float32 and the same way each time, on GPUs too."""
    return torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )


def proposing() -> AbstractContextManager[None]:
    """Let convolutions on GPUs round to TF32: for images that `exact` passes judge afterwards.

    They are still the same each time. Nothing is tuned: images leave the batch, and each number of
    images would be tuned anew, which takes longer than a pass.
    """
    return torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=True
    )


def reduced(x: Tensor) -> bool:
    """Return whether convolutions of images round more than float32 does, as `proposing` allows."""
    return x.is_cuda and torch.backends.cudnn.allow_tf32

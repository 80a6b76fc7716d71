"""Leaving things as they were found: a model's modes, buffers and gradients; the global RNGs."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal

import numpy as np
import torch
from torch import nn


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


@contextmanager
def kept_rng() -> Iterator[None]:
    """Put Python's, NumPy's and torch's global generators back afterwards."""
    python, array = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(array)


@contextmanager
def isolated_rng(seed: int) -> Iterator[None]:
    """Seed Python's, NumPy's and torch's global generators for a while, then put them back."""
    with kept_rng():
        seed_everything(seed)
        yield


def exact() -> AbstractContextManager[None]:
    """Compute convolutions in full float32 and the same way each time, on GPUs too."""
    return torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's global generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def derive(seed: int, *path: object) -> int:
    """Return a seed for one purpose, such as `derive(0, "epoch", 3)`, independent of all others."""
    text = repr((seed, *path)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:7], "big")


def generator_of(seed: int, device: torch.device | str) -> torch.Generator:
    """Return a generator of its own on a device."""
    return torch.Generator(device).manual_seed(seed)

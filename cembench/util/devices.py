"""The device that computes: a CPU or a GPU."""

from __future__ import annotations

import os
import re
from itertools import chain

from cembench.util.errors import CembenchError
from cembench.util.lazy import lazy_imports

with lazy_imports():
    import torch
    from torch import nn

NAMES = ("auto", "cpu", "cuda", "mps")
KNOWN = re.compile(r"auto|cpu|mps|cuda(:\d+)?")
PATIENCE = 16  # steps of a loop on a GPU between two looks at what it found


def known_device(name: str) -> str:
    """Return the name of a device, as it is.

    Raises:
        CembenchError: for a name that torch has not.
    """
    if not KNOWN.fullmatch(name):
        raise CembenchError(f"device {name}: give auto, cpu, cuda, cuda:1 or mps")
    return name


def pick_device(name: str) -> str:
    """Return a torch device, such as `cpu` or `cuda:1`; for `auto` CUDA's GPU, or the CPU.

    Raises:
        CembenchError: for an unknown name, and for a GPU that torch does not see.
    """
    kind, _, index = known_device(name).partition(":")
    if kind == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cuda" and not torch.cuda.is_available():
        raise CembenchError(f"device {name}: torch sees no GPU; use cpu")
    if kind == "cuda" and int(index or 0) >= (count := torch.cuda.device_count()):
        raise CembenchError(f"device {name}: torch sees cuda:0 to cuda:{count - 1}")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise CembenchError(f"device {name}: torch sees no GPU of Apple; use cpu")
    return name


def device_of(model: nn.Module) -> torch.device:
    """Return where a network is; the CPU for one that keeps no tensors."""
    kept = chain(model.parameters(), model.buffers())
    return next((tensor.device for tensor in kept), torch.device("cpu"))


def patience(device: torch.device) -> int:
    """Return after how many steps a loop may wait for a device to tell what it found.

    A CPU tells at once. A GPU is still busy with what was queued, and idle afterwards.
    """
    return 1 if device.type == "cpu" else PATIENCE


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def share_of_cores() -> int:
    """Return how many cores there are for each process that torchrun started on this machine."""
    local = os.environ.get("LOCAL_WORLD_SIZE", "")
    return max(1, cores() // int(local)) if local.isdigit() and int(local) else cores()

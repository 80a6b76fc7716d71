"""Meters of a benchmark: peak memory, floating-point operations, and the rate of the machine."""

from __future__ import annotations

import ctypes
import os
import statistics
import threading
import time
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from cembench.bench.calls import Calls

INTERVAL = 0.005  # seconds between two samples of the memory of the process
SIDE = 1024  # of the matrices whose product sets the roofline


class Peak:
    """Peak memory of a block, beyond what was in use before it.

    On a GPU that is the most that torch allocated; on a CPU the resident set of the process,
    sampled every few milliseconds.
    """

    bytes: int = 0

    def __init__(self, device: str) -> None:
        self.device = device
        self._done = threading.Event()

    def __enter__(self) -> Self:
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
            return self
        _trim_memory()
        self._before = self._highest = _resident()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.device == "cuda":
            self.bytes = torch.cuda.max_memory_allocated() - self._before
            return
        self._done.set()
        self._thread.join()
        self.bytes = max(self._highest, _resident()) - self._before

    def _watch(self) -> None:
        while not self._done.wait(INTERVAL):
            self._highest = max(self._highest, _resident())


def flops(model: nn.Module, example: Tensor) -> tuple[float, float]:
    """Return operations per image of a forward pass, and of one with the image's gradient."""
    counts = []
    for gradient in (False, True):
        with Calls() as calls:
            x = example.detach().requires_grad_(gradient)
            out = model(x)
            if gradient:
                torch.autograd.grad(out.sum(), x)
        counts.append(calls.flops / len(example))
    return counts[0], counts[1]


def product_rate(device: str, precision: str) -> float:
    """Return operations per second in the product of two matrices."""
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    a = torch.rand(SIDE, SIDE, device=device).to(kind)
    times = []
    for _ in range(10):
        begun = time.perf_counter()
        a @ a
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    return 2 * SIDE**3 / statistics.median(times)


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _trim_memory() -> None:
    """Return free memory to the system, so that one side does not reuse that of the other."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)

"""Machine of a benchmark: a ratio holds for one processor and one number of threads."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch

MACHINE = ("processor", "threads", "torch")  # columns
INSTRUCTIONS = ("avx2", "avx512_f", "avx512_vnni", "avx512_bf16", "amx_bf16", "bf16")


def machine(device: str) -> dict[str, str | int]:
    """Return the columns of a row that say where it was measured."""
    cuda = device == "cuda"
    return {
        "processor": torch.cuda.get_device_name() if cuda else _processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__.partition("+")[0],
    }


def clock(device: str) -> Callable[[], float]:
    """Return what tells seconds: of the CPU where one thread computes, else those that pass.

    So other jobs do not count where they can be told apart.
    """
    alone = device != "cuda" and torch.get_num_threads() == 1
    return time.process_time if alone else time.perf_counter


def _processor() -> str:
    """Return the name of the CPU, with the instructions that decide what bfloat16 gains."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    known = torch.cpu.get_capabilities()
    found = [name for name in INSTRUCTIONS if known.get(name)]
    return " ".join([*names[:1], *found]) or platform.processor() or platform.machine()

"""Machine: torch, GPUs, threads, memory, and the precision in which networks compute."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from cembench.doctor.finding import Finding
from cembench.util.devices import cores
from cembench.util.display.format import byte_size
from cembench.util.errors import said

INSTRUCTIONS = ("avx2", "avx512_f", "avx512_bf16", "amx_bf16", "bf16")
LITTLE = 2e9  # bytes of memory
QUOTA = Path("/sys/fs/cgroup/cpu.max")
LIMIT = Path("/sys/fs/cgroup/memory.max")


def torch_itself() -> Iterator[Finding]:
    """Tell whether torch can be imported."""
    try:
        import torch
    except Exception as error:  # a missing file, a library of another version, …
        what = f"torch cannot be imported: {said(error)}"
        remedy = "pip install --force-reinstall torch torchvision (see pytorch.org for your GPU)"
        yield Finding("torch", "problem", what, remedy)
        return
    yield Finding("torch", "ok", f"torch {torch.__version__}")
    if torch.cuda.is_available():
        yield from _gpus()
    elif torch.backends.mps.is_available():
        yield Finding("torch", "ok", "GPU of Apple: --device mps; `auto` takes the CPU")
    elif shutil.which("nvidia-smi"):
        why = "is a build for CPUs" if torch.version.cuda is None else "sees none: check the driver"
        text = f"nvidia-smi is here, so there may be a GPU, but torch {why}"
        yield Finding("torch", "note", text, "pytorch.org shows how to install torch for CUDA")
    else:
        yield Finding("torch", "ok", "no GPU: networks compute on the CPU")
    yield from _precision()


def _gpus() -> Iterator[Finding]:
    import torch

    for number in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(number)
        size = byte_size(found.total_memory)
        yield Finding("torch", "ok", f"cuda:{number}: {found.name}, {size}")


def _precision() -> Iterator[Finding]:
    import torch

    from cembench.models.copies.fast_copy import has_bfloat16

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind = "bfloat16" if has_bfloat16(device) else "float32"
    tf32 = ", TF32 on GPUs for training and proposals" if device.type == "cuda" else ""
    text = f"verdicts in float32; fast copies in {kind}{tf32}"
    yield Finding("torch", "ok", f"precision by default: {text}")
    known = torch.cpu.get_capabilities()
    named = [name for name in INSTRUCTIONS if known.get(name)]
    level = torch.backends.cpu.get_cpu_capability()
    yield Finding("torch", "ok", f"CPU: {level}; instructions {', '.join(named) or 'not known'}")


def threads() -> Iterator[Finding]:
    """Tell how many threads compute, and whether cores or other processes allow as many."""
    own, given = cores(), os.environ.get("OMP_NUM_THREADS", "")
    count = int(given) if given.isdigit() else own
    text = f"{own} cores, {count} threads" + (f" (OMP_NUM_THREADS={given})" if given else "")
    allowed = min(own, _quota())
    if count > allowed:
        remedy = f"export OMP_NUM_THREADS={max(1, int(allowed))}"
        text += f": more than the {allowed:g} cores that this process may use, so it will be slow"
        yield Finding("threads", "note", text, remedy)
    else:
        yield Finding("threads", "ok", text)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > own + 0.5:
        text = f"other work is going on: load {load:.1f} on {own} cores; everything takes longer"
        yield Finding("threads", "note", text)


def _quota() -> float:
    """Return how many cores the container grants."""
    try:
        granted, period = QUOTA.read_text().split()
        return int(granted) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return float("inf")


def memory() -> Iterator[Finding]:
    """Tell how much memory is free."""
    free, whole = _memory()
    if free is None or whole is None:
        return
    text = f"{byte_size(free)} of {byte_size(whole)} of memory are free"
    little = free < LITTLE
    remedy = (
        "close other programs; data: {store: disk} keeps images out of memory" if little else ""
    )
    yield Finding("memory", "note" if little else "ok", text, remedy)


def _memory() -> tuple[float | None, float | None]:
    """Return the bytes that are free and those that there are, as far as they are known."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found = {line.split(":")[0]: 1024 * int(line.split()[1]) for line in lines}
        free, whole = found["MemAvailable"], found["MemTotal"]
    except (OSError, ValueError, KeyError, IndexError):
        return None, None
    try:
        limit = int(LIMIT.read_text())
    except (OSError, ValueError):
        limit = whole
    return min(free, limit), min(whole, limit)

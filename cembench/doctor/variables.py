"""Environment variables that change what cembench does."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from cembench.doctor.finding import Finding

KNOWN = re.compile(
    r"CEMBENCH_\w+|OMP_NUM_THREADS|MKL_NUM_THREADS|KMP_\w+|CUDA_VISIBLE_DEVICES|PYTORCH_\w+|TORCH_HOME"
    r"|HF_\w+|HUGGINGFACE_\w+|XDG_CACHE_HOME|HTTPS?_PROXY|NO_COLOR|FORCE_COLOR|RANK|WORLD_SIZE"
    r"|SLURM_JOB_ID|PYTHONHASHSEED",
    re.IGNORECASE,
)
SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|(^|_)KEY", re.IGNORECASE)
LOGIN = re.compile(r"//[^/@\s]*@")  # in an address


def variables() -> Iterator[Finding]:
    """Tell those that are set, without what is secret in them."""
    found = {name: value for name, value in sorted(os.environ.items()) if KNOWN.fullmatch(name)}
    shown = [f"{name}={_shown(name, value)}" for name, value in found.items()]
    yield Finding("environment", "ok", ", ".join(shown) or "no variables that matter are set")
    if os.environ.get("WORLD_SIZE", "1") != "1":
        text = "WORLD_SIZE is set: commands wait for other processes of torchrun"
        yield Finding(
            "environment", "note", text, "unset RANK WORLD_SIZE, unless torchrun set them"
        )
    for name, text, remedy in _wrong(found):
        yield Finding("environment", "problem", f"{name}={found[name]}: {text}", remedy)


def _shown(name: str, value: str) -> str:
    return "(set)" if SECRET.search(name) else LOGIN.sub("//(login)@", value)


def _wrong(found: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    if not found.get("OMP_NUM_THREADS", "1").isdigit():
        yield "OMP_NUM_THREADS", "is no number of threads", "unset OMP_NUM_THREADS"
    try:
        seconds = float(found.get("CEMBENCH_TIMEOUT", "1"))
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e7:
        yield "CEMBENCH_TIMEOUT", "is no number of seconds above 0", "unset CEMBENCH_TIMEOUT"

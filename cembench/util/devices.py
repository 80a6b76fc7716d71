"""The device that computes: a CPU or a GPU."""

from __future__ import annotations

import torch

from cembench.util.errors import CembenchError


def pick_device(name: str) -> str:
    """Return `cpu` or `cuda`; for `auto` a GPU where there is one.

    Raises:
        CembenchError: for a GPU that torch does not see.
    """
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise CembenchError(f"device {name}: torch sees no GPU; use cpu")
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name

"""Tensors in the user's cache, each under a name made of everything that it is computed from.

Without a cache they are computed again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from cembench.util.errors import CembenchError
from cembench.util.files.layout import user_cache
from cembench.util.files.tensors import read_tensors, write_tensors


def obtain(name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the tensors kept under a name; those that are made, and kept, where none are."""
    values = read(name)
    if values is None:
        values = make()
        keep(name, values)
    return values


def read(name: str) -> dict[str, Tensor] | None:
    """Return the tensors kept under a name, if they are whole."""
    try:
        return read_tensors(_file(name), name)
    except CembenchError:
        return None


def keep(name: str, values: dict[str, Tensor]) -> None:
    """Keep tensors under a name, where that is possible."""
    with contextlib.suppress(CembenchError):
        write_tensors(_file(name), values, name=name)


def cache_folder() -> Path:
    """Return where they are kept."""
    return user_cache() / "features"


def _file(name: str) -> Path:
    return cache_folder() / f"{name}.safetensors"

"""State dicts that other programs wrote, read without running code."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from cembench.util.errors import CembenchError
from cembench.util.files import read_bytes

STATE_DICT_KEYS = (
    *("state_dict", "model_state_dict", "model", "net"),
    *("model_ema", "ema", "weights", "params"),
)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict: safetensors, or what `torch.save` wrote, also one kept inside a dict.

    Nothing but tensors and plain values is unpickled. Where a file holds several state dicts, the
    first of `STATE_DICT_KEYS` is taken.

    Raises:
        CembenchError: when it is missing, damaged, holds code, or no state dict.
    """
    content = read_bytes(path)
    try:
        found: Any = load(content)
    except SafetensorError:
        found = _unpickled(path, content)
    while isinstance(found, Mapping):
        tensors = {key: value for key, value in found.items() if isinstance(value, Tensor)}
        if tensors:
            return tensors
        inner = next((found[key] for key in STATE_DICT_KEYS if key in found), None)
        if inner is None:
            keys = ", ".join(map(str, list(found)[:10])) or "nothing"
            raise CembenchError(f"{path}: no state dict: it holds {keys}")
        found = inner
    raise CembenchError(f"{path}: no state dict, but a {type(found).__name__}")


def _unpickled(path: Path, content: bytes) -> Any:
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        whole = content[:2] == b"PK" or content[:1] == b"\x80"
        if whole and "weights_only" in str(error).lower():
            raise CembenchError(
                f"{path}: a pickle that holds more than tensors, and could run code; save the "
                "state_dict() of its network alone"
            ) from error
        raise CembenchError(f"{path}: neither safetensors nor a file of torch.save") from error

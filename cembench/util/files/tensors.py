"""Tensors in safetensors files: sealed ones, and ones that are filled piece by piece on disk."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from cembench.util.errors import CembenchError
from cembench.util.files import read_bytes, replacing
from cembench.util.files.seal import header_entries, header_metadata, is_sealed, write_sealed
from cembench.util.lazy import lazy_imports

with lazy_imports():
    import numpy as np
    from safetensors.torch import load, save
    from torch import Tensor

LONGEST_HEADER = 100_000_000  # bytes; safetensors has the same limit


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, Any] | None = None,
    name: str = "",
) -> None:
    """Write tensors by name, whole or not at all, with a seal.

    Args:
        path: the file.
        tensors: of any shape, type and device.
        metadata: plain values that describe them.
        name: what the file is, where another sealed file must not pass for it.

    Raises:
        CembenchError: when it cannot be written.
    """
    values = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    write_sealed(path, save(values, header_entries(metadata)), name)


def read_tensors(path: Path, name: str = "", *, legacy: bool = False) -> dict[str, Tensor]:
    """Read what `write_tensors` wrote under this name, on the CPU.

    Args:
        path: the file.
        name: as it was written.
        legacy: also take files without metadata as they are: earlier versions wrote some of them
            without a seal or under another name. Damage to such a file goes unnoticed.

    Raises:
        CembenchError: when it is missing, damaged, or another file.
    """
    content = read_bytes(path)
    try:
        old = legacy and tensor_metadata(content) is None
        if old or is_sealed(content, name):
            return load(content)
    except (SafetensorError, ValueError, TypeError, AttributeError, RecursionError):
        pass
    raise CembenchError(f"{path}: damaged, or changed since it was written")


def tensor_metadata(content: bytes) -> dict[str, Any] | None:
    """Return the metadata in the content of a safetensors file; None for a file without any.

    Raises:
        ValueError, TypeError, AttributeError, RecursionError: when it is no such file.
    """
    length = int.from_bytes(content[:8], "little")
    if length > min(len(content) - 8, LONGEST_HEADER):
        raise ValueError("longer than the file, or than any header")
    return header_metadata(json.loads(content[8 : 8 + length]).get("__metadata__", {}))


@contextmanager
def tensor_file(
    path: Path, shapes: Mapping[str, tuple[str, tuple[int, ...]]]
) -> Iterator[dict[str, np.memmap]]:
    """Yield arrays that lie on disk, which become a safetensors file when all went well.

    Args:
        path: the file to be.
        shapes: by name, the type (`float32` or `int64`) and the shape.

    Raises:
        CembenchError: when there is no room, before anything is computed.
    """
    header: dict[str, Any] = {}
    end = 0
    for name, (kind, shape) in shapes.items():
        begin, end = end, end + math.prod(shape) * np.dtype(kind).itemsize
        code = {"float32": "F32", "int64": "I64"}[kind]
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    offset = 8 + len(text)
    with replacing(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.flush()
        if hasattr(os, "posix_fallocate"):  # not on macOS
            os.posix_fallocate(file.fileno(), offset, max(1, end))
        file.truncate(offset + end)
        yield {
            name: np.memmap(file, kind, "r+", offset + header[name]["data_offsets"][0], shape)
            for name, (kind, shape) in shapes.items()
        }

"""Tensors in safetensors files: sealed ones, and ones that are filled piece by piece on disk.

Files are written part by part and can be read part by part, so that they may exceed the memory.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError

from cembench.util.errors import CembenchError
from cembench.util.files import read_bytes, replacing
from cembench.util.files.seal import header_entries, header_metadata, is_sealed, sealing
from cembench.util.lazy import lazy_imports
from cembench.util.stopping import postponed

with lazy_imports():
    import numpy as np
    import torch
    from safetensors import safe_open
    from safetensors.torch import load
    from torch import Tensor

LONGEST_HEADER = 2**25  # bytes, which take up to twenty times as much memory
# Types by name, with their size in bytes, in the order in which safetensors writes them.
TYPES = {"int64": ("I64", 8), "float64": ("F64", 8), "float32": ("F32", 4), "int32": ("I32", 4)}
TYPES |= {"bfloat16": ("BF16", 2), "float16": ("F16", 2), "int16": ("I16", 2), "int8": ("I8", 1)}
TYPES |= {"uint8": ("U8", 1), "bool": ("BOOL", 1)}


class Parts(NamedTuple):
    """A tensor whose rows come in parts, one after the other.

    Attributes:
        kind: its type, a key of `TYPES`.
        shape: that of the whole.
        parts: the rows.
    """

    kind: str
    shape: tuple[int, ...]
    parts: Iterable[Tensor]

    @classmethod
    def of(cls, whole: Tensor) -> Parts:
        """Return a tensor as its only part."""
        return cls(str(whole.dtype).removeprefix("torch."), tuple(whole.shape), [whole])


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor | Parts],
    metadata: Mapping[str, Any] | None = None,
    name: str = "",
) -> None:
    """Write tensors by name, whole or not at all, with a seal.

    Args:
        path: the file.
        tensors: of any shape, of a type in `TYPES` and of any device.
        metadata: plain values that describe them.
        name: what the file is, where another sealed file must not pass for it.

    Raises:
        CembenchError: when it cannot be written.
    """
    values = {k: v if isinstance(v, Parts) else Parts.of(v) for k, v in tensors.items()}
    kinds = list(TYPES)
    order = sorted(values, key=lambda key: (kinds.index(values[key].kind), key))
    shapes = {key: (values[key].kind, values[key].shape) for key in order}
    with postponed(), sealing(path, name) as file:
        file.write(_header(shapes, header_entries(metadata))[0])
        for key in order:
            for part in values[key].parts:
                content = part.detach().cpu().contiguous().flatten().view(torch.uint8)
                file.write(content.numpy().data)


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


@contextmanager
def open_tensors(path: Path, name: str = "", *, legacy: bool = False) -> Iterator[Any]:
    """Open what `write_tensors` wrote, with arguments as for `read_tensors`.

    Yields:
        What safetensors' `safe_open` does: `get_tensor(key)`, and `get_slice(key)[start:end]`.

    Raises:
        CembenchError: when it is missing, damaged, or another file.
    """
    try:
        with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
            whole = (legacy and tensor_metadata(content) is None) or is_sealed(file, name)
        opened = safe_open(path, "pt") if whole else None
    except OSError as error:
        raise CembenchError(f"cannot read {path}: {error.strerror}") from error
    except (SafetensorError, ValueError, TypeError, AttributeError, RecursionError):
        opened = None
    if opened is None:
        raise CembenchError(f"{path}: damaged, or changed since it was written")
    with opened as tensors:
        yield tensors


def tensor_metadata(content: bytes | mmap) -> dict[str, Any] | None:
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
    header, begins = _header(shapes)
    offset, end = len(header), begins.pop("")
    with replacing(path) as file:
        file.write(header)
        file.flush()
        if hasattr(os, "posix_fallocate"):  # not on macOS
            os.posix_fallocate(file.fileno(), offset, max(1, end))
        file.truncate(offset + end)
        yield {
            name: np.memmap(file, kind, "r+", offset + begins[name], shape)
            for name, (kind, shape) in shapes.items()
        }


def _header(
    shapes: Mapping[str, tuple[str, tuple[int, ...]]], entries: Mapping[str, str] | None = None
) -> tuple[bytes, dict[str, int]]:
    """Return what stands before the values of tensors that follow each other in this order.

    Args:
        shapes: by name, the type and the shape.
        entries: of the metadata.

    Returns:
        It, as safetensors writes it, and where each tensor begins behind it; the end under `""`.
    """
    header: dict[str, Any] = {} if entries is None else {"__metadata__": dict(entries)}
    begins = {"": 0}
    for name, (kind, shape) in shapes.items():
        (code, size), begin = TYPES[kind], begins[""]
        begins |= {name: begin, "": begin + math.prod(shape) * size}
        offsets = [begin, begins[""]]
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": offsets}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, begins

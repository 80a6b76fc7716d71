"""Reading YAML and JSON strictly; writing files whole or not at all."""

from __future__ import annotations

import errno
import glob
import hashlib
import io
import json
import math
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from cembench.util.errors import CembenchError, ConfigError

LONGEST = 100_000  # characters of settings, aliases followed: reading takes seconds at most
_UNWRITABLE = re.compile(r"[\0\ud800-\udfff]")


def write_bytes(path: Path, content: bytes) -> None:
    """Write through a temporary neighbour and a rename, so that a reader never sees half a file.

    Raises:
        CembenchError: when the folder is not writable or the disk is full; the old file stays.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(".tmp", f".{path.name}.", path.parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        if temporary is not None:
            with suppress(OSError):  # gone already, or the file system is read-only by now
                Path(temporary).unlink()


def clear_leftovers(path: Path) -> None:
    """Remove what killed writes of this file left; nobody else may be writing it."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.????????.tmp"):
        leftover.unlink(missing_ok=True)


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
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.flush()
            if hasattr(os, "posix_fallocate"):  # not on macOS
                os.posix_fallocate(file.fileno(), offset, max(1, end))
            file.truncate(offset + end)
        yield {
            name: np.memmap(temporary, kind, "r+", offset + header[name]["data_offsets"][0], shape)
            for name, (kind, shape) in shapes.items()
        }
        temporary.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text as `write_bytes` does."""
    write_bytes(path, text.encode())


def _unwritable(path: Path, error: OSError) -> CembenchError:
    remedy = "free some space" if error.errno == errno.ENOSPC else "choose another folder"
    return CembenchError(f"cannot write {path}: {error.strerror}; {remedy}")


def read_bytes(path: Path) -> bytes:
    """Read a file.

    Raises:
        CembenchError: when it is missing or unreadable.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise CembenchError(f"cannot read {path}: {error.strerror}") from error


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal text."""
    return hashlib.sha256(read_bytes(path)).hexdigest()


def digest(value: Any) -> str:
    """Return twelve hexadecimal digits that identify plain values, whatever their key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def parse_yaml(text: str, source: str) -> Any:
    """Read YAML 1.2 without tags; duplicate keys and syntax errors are named with their line.

    Raises:
        ConfigError: for anything that is not plain YAML, or longer than settings ever are.
    """
    try:
        if len(text) > LONGEST:
            raise ValueError(f"longer than {LONGEST} characters")
        values = YAML(typ="safe", pure=True).load(text)
        _require_plain(values)
        return values
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f" in line {mark.line + 1}" if mark else ""
        problem = (error.problem or error.context or "syntax error").splitlines()[0][:200]
        raise ConfigError.single(f"{source}: not valid YAML{line}: {problem}") from None
    except (YAMLError, ValueError, KeyError, RecursionError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ConfigError.single(f"{source}: not valid YAML: {reason}") from None


def _require_plain(values: Any) -> None:
    """Refuse what only Python could mean, and aliases that make a short text huge or endless."""
    left, size = [values], 0
    while left:
        value = left.pop()
        size += len(value) if isinstance(value, list | dict | str) else 1
        if size > LONGEST:
            raise ValueError(f"longer than {LONGEST} characters once its aliases are followed")
        if isinstance(value, list | dict):
            left += value if isinstance(value, list) else [*value, *value.values()]
        else:
            _require_scalar(value)


def _require_scalar(value: Any) -> None:
    if not isinstance(value, str | int | float | None):
        raise ValueError(f"a {type(value).__name__} is no setting; in quotes it is a text")
    if isinstance(value, str) and _UNWRITABLE.search(value):
        raise ValueError("a text with a character that no file can hold")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise ValueError("a whole number of more than 64 bits")


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        CembenchError: for a missing file, bad YAML or anything but a mapping.
    """
    try:
        text = read_bytes(path).decode()
    except UnicodeDecodeError:
        raise ConfigError.single(f"{path}: not a text file in UTF-8") from None
    values = parse_yaml(text, str(path))
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError.single(f"{path}: expected a mapping of settings by name")
    return values


def to_yaml(values: Any) -> str:
    """Write plain values as block-style YAML in the given order."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    stream = io.StringIO()
    yaml.dump(values, stream)
    return stream.getvalue()

"""Shipped files: the protocols and recipes that come with cembench, by name."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Literal

from cembench.util.errors import ConfigError

Kind = Literal["protocol", "recipe"]


def shipped(kind: Kind) -> list[str]:
    """Return the names of the files of a kind that come with cembench."""
    return sorted(Path(item.name).stem for item in _folder(kind).iterdir())


def find_file(kind: Kind, name: str, base: Path = Path()) -> Path:
    """Return the file that is meant: the shipped one of that name, else the one at that path.

    Args:
        kind: where to look for a name.
        name: the name, or the path of a file (relative to `base`).
        base: the folder that relative paths start from.

    Raises:
        ConfigError: for what is neither a name nor the path of a file.
    """
    if name in shipped(kind):
        return _folder(kind) / f"{name}.yaml"
    path = base / name
    if path.suffix in (".yaml", ".yml") or path.is_file():
        return path
    from cembench.util.settings import nearest  # pydantic: the tab key need not wait for it

    raise ConfigError.single(f"no {kind} '{name}'; {nearest(name, shipped(kind))}; or give a file")


def _folder(kind: Kind) -> Path:
    return Path(str(files("cembench"))) / f"{kind}s"

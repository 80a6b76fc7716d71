"""Provenance of results: the version of the code, the packages, the machine."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from cembench.util.version import __version__

PACKAGES = ("torch", "torchvision", "pyautoattack", "torch-fidelity", "scikit-learn", "numpy")


def environment(device: torch.device, libraries: Iterable[str] = ()) -> dict[str, Any]:
    """Return what results can depend on besides data and weights, for a record.

    `libraries` are optional packages that take part.
    """
    name = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    return {
        "python": platform.python_version(),
        **versions(libraries),
        **code_version(),
        "device": f"{device.type} {name}",
        "threads": torch.get_num_threads(),
        "precision": "fp32",
    }


def versions(libraries: Iterable[str] = ()) -> dict[str, str]:
    """Return the versions of cembench and of the packages that it computes with.

    Of some optional `libraries` too, where they are installed.
    """
    found = {"cembench": __version__, **{package: version(package) for package in PACKAGES}}
    for library in set(libraries) - {*found}:
        with suppress(PackageNotFoundError):
            found[library] = version(library)
    return found


@cache
def code_version() -> dict[str, Any]:
    """Return the digest of cembench's own `source`, and its git `commit`.

    The commit is None outside a repository; `dirty` says whether the source differs from it.
    """
    package = Path(__file__).parents[1]
    sha = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        sha.update(str(file.relative_to(package)).encode() + b"\0" + file.read_bytes())
    found: dict[str, Any] = {"source": sha.hexdigest()[:12], "commit": None, "dirty": None}
    commit = _git(package, "rev-parse", "HEAD")
    tracked = _git(package, "ls-files", "--error-unmatch", "__init__.py")
    if commit and tracked:
        found |= {"commit": commit, "dirty": bool(_git(package, "status", "--porcelain", "."))}
    return found


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None

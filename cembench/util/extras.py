"""Optional packages: imported where they are needed, and what to install where they are missing."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from cembench.util.errors import CembenchError


def require_package(module: str, remedy: str) -> None:
    """Require that a module can be found, without importing it.

    Raises:
        CembenchError: naming what to install.
    """
    package = module.partition(".")[0]
    if find_spec(package) is None:
        raise CembenchError(f"{package} is not installed: pip install {remedy}")


def optional_package(module: str, remedy: str) -> Any:
    """Import a module.

    Raises:
        CembenchError: where it is missing, naming what to install.
    """
    require_package(module, remedy)
    return import_module(module)

"""Arguments of commands: modules, devices, KEY=VALUE, and folders of runs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from cembench.interop.hub.address import is_address
from cembench.util.devices import NAMES, known_device
from cembench.util.errors import CembenchError
from cembench.util.files.layout import RunLayout


class Module(click.ParamType):
    """A module by import path; a variable holds several, between commas or blanks."""

    name = "module"

    def split_envvar_value(self, rv: str) -> list[str]:
        """Return the modules that a variable names."""
        return re.findall(r"[^\s,]+", rv)


class Device(click.ParamType):
    """A device of torch, by its name."""

    name = "device"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        """Refuse a name that torch has not."""
        try:
            return known_device(value)
        except CembenchError as error:
            self.fail(str(error), param, ctx)

    def shell_complete(self, ctx: Any, param: Any, incomplete: str) -> list[CompletionItem[str]]:
        """Return the names that begin so."""
        return [CompletionItem(name) for name in NAMES if name.startswith(incomplete)]


def value_of(option: str, args: Sequence[str]) -> str:
    """Return the value that an option was given among arguments."""
    for arg, after in zip(args, [*args[1:], "-"], strict=True):
        name, equals, value = arg.partition("=")
        if name == option:
            return value if equals else "…" if after.startswith("-") else after
    return "…"


def require_assignments(words: tuple[str, ...]) -> tuple[str, ...]:
    """Return words that are all KEY=VALUE.

    Raises:
        CembenchError: for another one.
    """
    for word in words:
        if "=" not in word:
            raise CembenchError(f"{word}: one argument too many; settings are KEY=VALUE")
    return words


def divided(words: Iterable[str]) -> tuple[list[str], tuple[str, ...]]:
    """Return the paths and addresses among words, and the rest, which are KEY=VALUE."""
    words = list(words)
    named = [w for w in words if "=" not in w or is_address(w) or Path(w).exists()]
    return named, tuple(word for word in words if word not in named)


def runs_of(paths: Iterable[Path]) -> list[Path]:
    """Return checkpoints and run folders; of a folder of runs, all that are below it."""
    found: list[Path] = []
    for path in paths:
        above = path.is_dir() and not RunLayout(path).checkpoint.exists()
        found += (RunLayout.runs_below(path) if above else []) or [path]
    return list(dict.fromkeys(found))

"""Keys of settings in words; the configuration pages of the documentation use the same words.

It imports the standard library alone, since the documentation is built without pydantic.
"""

from __future__ import annotations

import inspect
import re

PLAIN = {"float": "number", "int": "whole number", "str": "text", "Any": "anything"}
LIMITS = {"ge": "≥ {}", "gt": "> {}", "le": "≤ {}", "lt": "< {}", "pattern": "like `{}`"}
LIMITS |= {"min_length": "at least {}", "max_length": "at most {}"}
ITEM = re.compile(r"    (\w+): (.*)")


def attributes(docstring: str | None) -> dict[str, str]:
    """Return what a docstring in Google style says of each attribute, in one line each."""
    found: dict[str, str] = {}
    inside, name = False, ""
    for line in inspect.cleandoc(docstring or "").splitlines():
        if line and not line.startswith(" "):
            inside = line == "Attributes:"
        elif inside and (item := ITEM.fullmatch(line)):
            name = item[1]
            found[name] = item[2]
        elif inside and line:
            found[name] = f"{found[name]} {line.strip()}"
    return found


def summary(docstring: str | None) -> str:
    """Return the first sentence or line of a docstring, in one line."""
    return " ".join(inspect.cleandoc(docstring or "").split("\n\n")[0].split())


def limited(words: str, limits: list[str]) -> str:
    """Return the words of a type with limits such as `≥ 0` behind them."""
    if not limits:
        return words
    return f"{words}{', ' if words[-1].isdigit() else ' '}{', '.join(limits)}"

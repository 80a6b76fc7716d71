"""Arguments of functions for Python: wrong types are told in one line."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from functools import wraps
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar

from cembench.util.errors import CembenchError, one_line

F = TypeVar("F", bound=Callable[..., Any])

KINDS: dict[str, tuple[Any, str]] = {
    "str": (str, "text"),
    "Path": (Path, "a path"),
    "int": (Integral, "a whole number"),
    "float": (Real, "a number"),
    "bool": (bool, "True or False"),
    "None": (type(None), ""),
}
SEVERAL = re.compile(r"Sequence\[(.+)\]")


def checked(function: F) -> F:
    """Return a function that refuses arguments of other types than it says, in one line.

    What it says is read as text, so nothing is imported for it; types besides `KINDS` are left to
    the function.
    """
    signature = inspect.signature(function)
    several = inspect.Parameter.VAR_POSITIONAL
    wanted = {
        one.name: f"Sequence[{one.annotation}]" if one.kind is several else str(one.annotation)
        for one in signature.parameters.values()
    }

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise CembenchError(f"{function.__name__}: {error}") from None
        for name, value in given.items():
            if not _fits(value, wanted[name]):
                raise CembenchError(
                    f"{name}: give {_words(wanted[name])}, got {one_line(repr(value))[:80]}"
                )
        return function(*args, **kwargs)

    return call  # type: ignore[return-value]


def _fits(value: Any, wanted: str) -> bool:
    if several := SEVERAL.fullmatch(wanted):
        listed = isinstance(value, Sequence) and not isinstance(value, str | bytes)
        return listed and all(_fits(one, several[1]) for one in value)
    kinds = wanted.split(" | ")
    if not {*kinds} <= {*KINDS}:
        return True
    number = {"int", "float"} & {*kinds}
    return any(isinstance(value, KINDS[kind][0]) for kind in kinds) and not (
        number and isinstance(value, bool)
    )


def _words(wanted: str) -> str:
    if several := SEVERAL.fullmatch(wanted):
        return f"a list, each of it {_words(several[1])}"
    return " or ".join(words for kind in wanted.split(" | ") if (words := KINDS[kind][1]))

"""Values that the experiments of a suite share: made once, instead of once per experiment."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")
_kept: ContextVar[dict[str, tuple[Hashable, Any]] | None] = ContextVar("kept", default=None)


@contextmanager
def sharing() -> Iterator[None]:
    """Let `shared` keep values until this ends; within another one nothing changes."""
    token = None if _kept.get() is not None else _kept.set({})
    try:
        yield
    finally:
        if token is not None:
            _kept.reset(token)


def shared(kind: str, key: Callable[[], Hashable], make: Callable[[], T]) -> T:
    """Return the value of this kind that was made last, if its key is the same, or a new one.

    At most one value of a kind is kept, and it is dropped before another one is made, so memory
    does not grow with the number of experiments. Outside of `sharing` each call makes a new one.

    Args:
        kind: what it is.
        key: returns what decides the value.
        make: makes it.
    """
    kept = _kept.get()
    if kept is None:
        return make()
    wanted = key()
    if kind not in kept or kept[kind][0] != wanted:
        kept.pop(kind, None)
        kept[kind] = wanted, make()
    value: T = kept[kind][1]
    return value

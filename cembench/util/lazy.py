"""Lazy imports: what a module imports when it first uses it, as `lazy import` of Python 3.15 does.

Settings stand beside the functions that compute with them. Where torch is imported lazily, settings
are read, checked and listed without it.
"""

from __future__ import annotations

import builtins
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from types import SimpleNamespace
from typing import Any

_ONE_BLOCK = Lock()


@contextmanager
def lazy_imports() -> Iterator[None]:
    """Defer the imports of a block, which stands at the top of a module.

    Each name stands for what it would be. Its first call, attribute, subclass or `isinstance`
    imports it and rebinds the name, so later uses cost nothing. Annotations do not use it. It must
    not be caught by `except`, or compared, before it was used.

    Examples:
        >>> with lazy_imports():
        ...     from colorsys import rgb_to_hls
        >>> rgb_to_hls(0, 0, 0)
        (0.0, 0.0, 0.0)
        >>> type(rgb_to_hls).__name__
        'function'
    """
    scope = sys._getframe(2).f_globals

    def deferred(
        name: str, globals: Any = None, locals: Any = None, names: Any = (), level: int = 0
    ) -> Any:
        if globals is not scope:  # the import of another module, in another thread
            return eager(name, globals, locals, names, level)
        if names:
            return SimpleNamespace(**{inner: _Deferred(name, inner) for inner in names})
        return _Deferred(name)

    with _ONE_BLOCK:
        eager = builtins.__import__
        builtins.__import__ = deferred  # type: ignore[assignment]
        try:
            yield
        finally:
            builtins.__import__ = eager
    for name, value in scope.items():
        if type(value) is _Deferred:
            value._places.append((scope, name))


class _Deferred:
    """A module, or what it has under a name, before it is imported."""

    def __init__(self, module: str, name: str = "") -> None:
        self._module, self._name = module, name
        self._places: list[tuple[dict[str, Any], str]] = []

    def _import(self) -> Any:
        found = importlib.import_module(self._module)
        found = getattr(found, self._name) if self._name else found
        for scope, name in self._places:
            if scope.get(name) is self:
                scope[name] = found
        return found

    def __getattr__(self, name: str) -> Any:
        if name.startswith(("__typing_", "__parameters__")):  # an annotation asks: no type variable
            raise AttributeError(name)
        return getattr(self._import(), name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._import()(*args, **kwargs)

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self._import(),)

    def __instancecheck__(self, instance: Any) -> bool:
        return isinstance(instance, self._import())

"""Registries of settings classes by name, imported when asked for; plugins add their own."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
import sys
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BeforeValidator

from cembench.util.errors import CembenchError, ConfigError
from cembench.util.moved import moved_to
from cembench.util.settings import Choice, nearest

T = TypeVar("T", bound=Choice)

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+@-]*")  # files and columns are called after it


_registries: list[Registry[Any]] = []


class Registry(Generic[T]):
    """A table from names to settings classes.

    Entries that ship with cembench are given as `name: "module:Class"`, so listing them imports
    nothing heavy. A plugin adds its own with the `register` decorator.
    """

    def __init__(self, kind: str, base: type[T], builtin: dict[str, str]) -> None:
        self.kind = kind
        self.base = base
        self._targets: dict[str, str | type[T]] = dict(builtin)
        _registries.append(self)

    def names(self) -> list[str]:
        """Return every known name, sorted."""
        load_plugins()
        return self.known()

    def known(self) -> list[str]:
        """Return the names that are known without importing plugins, sorted."""
        return sorted(self._targets)

    def register(self, cls: type[T]) -> type[T]:
        """Add a class under its `name`, as a decorator.

        Raises:
            CembenchError: for a class that lacks something, or a name that is taken or no name.
        """
        name = getattr(cls, "name", None)
        if not issubclass(cls, self.base) or not isinstance(name, str) or not NAME.fullmatch(name):
            raise CembenchError(
                f"{cls.__name__} is no {self.kind}: it needs the base {self.base.__name__}, and a "
                "class variable `name` of letters, digits and _ . + @ -"
            )
        if missing := ", ".join(sorted(cls.__abstractmethods__)):
            raise CembenchError(f"{self.kind} '{name}' lacks {missing}")
        if name in self._targets:
            raise CembenchError(f"{self.kind} '{name}' is registered already; rename yours")
        self._targets[name] = cls
        return cls

    def find(self, name: str) -> type[T]:
        """Return the class of that name.

        Raises:
            ConfigError: for an unknown name, with the nearest known one.
        """
        load_plugins()
        target = self._targets.get(name)
        if target is None:
            hint = self._elsewhere(name) or nearest(name, self._targets)
            raise ConfigError.single(f"unknown {self.kind} '{name}'; {hint}", "name")
        if isinstance(target, str):
            module, _, attribute = target.partition(":")
            target = getattr(importlib.import_module(module), attribute)
        assert isinstance(target, type)
        return target

    def _elsewhere(self, name: str) -> str:
        """Return which registries have a name, and the key that one of them goes under, if any."""
        others = [other for other in _registries if name in other.known()]
        keys = filter(None, map(self._key_of, others))
        meant = [f"did you mean {self.kind}.{key}={name}?" for key in keys]
        return meant[0] if meant else " or ".join(f"it names a {other.kind}" for other in others)

    def _key_of(self, other: Registry[Any]) -> str:
        """Return the key by which settings of this registry hold one of another, if there is one.

        It is found by its default value.
        """
        for name in self.known():
            for key, field in self.find(name).model_fields.items():
                if isinstance(field.default, other.base):
                    return key
        return ""

    def parse(self, value: Any) -> T:
        """Build settings from `"name"`, from `{"name": …, settings…}`, or return them as they are.

        Raises:
            ConfigError: for an unknown name or wrong settings.
        """
        if isinstance(value, self.base):
            return value
        if isinstance(value, str):
            value = {"name": value}
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            raise ConfigError.single(f"give the name of a {self.kind}: {', '.join(self.names())}")
        rest = {key: inner for key, inner in value.items() if key != "name"}
        return self.find(value["name"]).parse(rest)

    def field(
        self,
        default: str | None = None,
        words: Collection[str] = (),
        given: Mapping[str, Any] | None = None,
    ) -> BeforeValidator:
        """Return the pydantic annotation of a field, or of a list's items, that hold one of these.

        Args:
            default: the name that settings given without one belong to.
            words: texts that the field takes as they are, besides names.
            given: values of settings given without a name, where they have none.
        """

        def parse(value: Any) -> Any:
            if isinstance(value, str) and value in words:
                return value
            if default is not None and isinstance(value, dict) and "name" not in value:
                value = {"name": default, **(given or {}), **value}
            return self.parse(value)

        return BeforeValidator(parse)


def registries() -> tuple[Registry[Any], ...]:
    """Return all registries of the modules that are imported."""
    return tuple(_registries)


_installed = importlib.metadata.entry_points(group="cembench.plugins")
_pending: list[Callable[[], Any]] = [entry.load for entry in _installed]
_trusted: set[str] = {entry.module for entry in _installed}
_named: dict[str, None] = {}  # in their order


def add_plugin(module: str) -> None:
    """Queue a user's module, by import path, that registers something.

    From then on checkpoints may name factories of networks in it.
    """
    _trusted.add(module)
    _named[module] = None
    _pending.append(partial(_import, module))


def _import(module: str) -> None:
    try:
        importlib.import_module(module)
    except Exception:
        _named.pop(module, None)  # what cannot be imported here is no use to other processes
        raise


def named_plugins() -> tuple[str, ...]:
    """Return the modules that the user named, which other processes have to import as well."""
    return tuple(_named)


def is_trusted(module: str) -> bool:
    """Return whether the user or an installed package named a module, or a package around it."""
    return any(module == known or module.startswith(f"{known}.") for known in _trusted)


def load_plugins() -> None:
    """Import queued plugins, also from the working folder.

    Raises:
        CembenchError: saying why one could not be imported.
    """
    while _pending:
        load = _pending.pop()
        if (here := str(Path.cwd())) not in sys.path:
            sys.path.append(here)
        try:
            load()
        except CembenchError:
            raise
        except Exception as error:  # user code
            why = f"{type(error).__name__}: {error}"
            if isinstance(error, ImportError):
                now = moved_to(error)
                why = f"{error}" + (f"; it is {now} now" if now else "")
            raise CembenchError(f"plugin cannot be imported: {why}") from error

"""The package as its source tells, by griffe: nothing is imported, so nothing needs torch."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import griffe

ROOT = Path(__file__).parents[2]


@cache
def package() -> griffe.Module:
    """Return the package."""
    found = griffe.load("cembench", search_paths=[ROOT], allow_inspection=False)
    assert isinstance(found, griffe.Module)
    return found


def find(path: str) -> griffe.Object:
    """Return what an import path names, wherever it was defined."""
    found = package()[path.removeprefix("cembench.")]
    return found.final_target if isinstance(found, griffe.Alias) else found


def resolve(name: str, scope: griffe.Object) -> griffe.Object:
    """Return what a name means inside a class or module."""
    return find(scope.resolve(name))


def expression(value: Any) -> ast.expr:
    """Return the syntax tree of an annotation or a value."""
    return ast.parse(str(value), mode="eval").body


def family(cls: griffe.Class) -> list[griffe.Class]:
    """Return a class after its bases, the furthest first, as pydantic orders their keys."""
    return [*reversed(cls.mro()), cls]


def is_key(member: griffe.Object | griffe.Alias) -> bool:
    """Return whether pydantic makes a key of a member of a class."""
    public = member.is_attribute and not member.name.startswith("_")
    own = public and "instance-attribute" in member.labels and member.annotation is not None
    return own and str(member.annotation) != "None"


def registries() -> Iterator[str]:
    """Yield the path of every registry of the package."""
    modules = [package()]
    while modules:
        module = modules.pop()
        modules += [inner for inner in module.modules.values() if not inner.is_alias]
        for member in module.members.values():
            own = not member.is_alias and member.is_attribute
            if own and str(member.annotation).startswith("Registry["):
                yield member.path


@cache
def registry(path: str) -> tuple[str, str, dict[str, griffe.Class]]:
    """Return what a registry holds: the word for it, the path of the base, and classes by name."""
    found = find(path)
    call = expression(found.value)
    assert isinstance(call, ast.Call)
    kind, base, entries = call.args
    places = {k: v.replace(":", ".") for k, v in ast.literal_eval(entries).items()}
    classes = {name: find(place) for name, place in places.items()}
    return ast.literal_eval(kind), resolve(ast.unparse(base), found.parent).path, classes


def text_of(cls: griffe.Class) -> str:
    """Return the docstring of a class without its attributes."""
    return "\n\n".join(s.value for s in _sections(cls) if s.kind.value == "text")


def description(cls: griffe.Class, member: griffe.Attribute) -> str:
    """Return what its field, its class or the nearest base says of a key; empty for nothing."""
    field = expression(member.value)
    for word in field.keywords if isinstance(field, ast.Call) else []:
        if word.arg == "description":
            return ast.literal_eval(word.value)
    for owner in (cls, *cls.mro()):
        for section in _sections(owner):
            for item in section.value if section.kind.value == "attributes" else ():
                if item.name == member.name:
                    return " ".join(item.description.split())
    return ""


def _sections(cls: griffe.Class) -> list[griffe.DocstringSection]:
    return cls.docstring.parse("google") if cls.docstring else []

"""Types and defaults of the configuration's keys in words and in YAML."""

from __future__ import annotations

import ast
from dataclasses import dataclass, replace
from typing import Any

import griffe
from source import expression, find, resolve

PLAIN = {"float": "number", "int": "whole number", "str": "text", "Any": "anything"}
LIMITS = {
    "ge": "≥ {}",
    "gt": "> {}",
    "le": "≤ {}",
    "lt": "< {}",
    "min_length": "at least {}",
    "max_length": "at most {}",
    "pattern": "like `{}`",
}
REQUIRED, CUSTOMARY = "*required*", "*depends*"


@dataclass(frozen=True)
class Type:
    """A type in words.

    Attributes:
        words: such as `number`.
        limits: such as `≥ 0`.
        classes: paths of the settings classes in it, which stand in `words` as `<PATH>`.
    """

    words: str
    limits: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()

    def __str__(self) -> str:
        limits = ", ".join(limit.replace(" ", "\N{NO-BREAK SPACE}") for limit in self.limits)
        return f"{self.words} {limits}".strip()


def type_of(node: ast.expr, scope: griffe.Object) -> Type:
    """Put a type into words."""
    match node:
        case ast.BinOp(left, ast.BitOr(), right):
            return _either(type_of(left, scope), type_of(right, scope))
        case ast.Subscript(ast.Name("Annotated"), ast.Tuple([inner, *notes])):
            return _limited(type_of(inner, scope), notes)
        case ast.Subscript(ast.Name("SerializeAsAny"), inner):
            return type_of(inner, scope)
        case ast.Subscript(ast.Name("Literal"), given):
            values = given.elts if isinstance(given, ast.Tuple) else [given]
            return Type(", ".join(f"`{flow(ast.literal_eval(v))}`" for v in values))
        case ast.Subscript(ast.Name("list"), inner):
            item = type_of(inner, scope)
            return replace(item, words=f"list: {item.words}")
        case ast.Subscript(ast.Name("dict"), ast.Tuple([_, inner])):
            item = type_of(inner, scope)
            return replace(item, words=f"by name: {item.words}")
        case ast.Constant(None):
            return Type("`null`")
        case ast.Name("bool"):
            return Type("`true`, `false`")
        case ast.Name(name) if name in PLAIN:
            return Type(PLAIN[name])
        case ast.Name(name):
            return _named(resolve(name, scope))
    raise ValueError(f"{scope.path}: no words for the type {ast.unparse(node)}")


def default_of(member: griffe.Attribute, kind: Type, scope: griffe.Object) -> str:
    """Write the default of a key; empty where it is that of other settings, or nothing."""
    node = None if member.value is None else _given(expression(member.value))
    if node is None:
        return REQUIRED
    value = _value(node, scope)
    if value is None and "`null`" not in kind.words:
        return CUSTOMARY
    return f"`{flow(value)}`" if value not in ({}, "") else ""


def flow(value: Any) -> str:
    """Write a value as YAML does."""
    match value:
        case dict():
            return "{" + ", ".join(f"{k}: {flow(v)}" for k, v in value.items()) + "}"
        case list():
            return f"[{', '.join(map(flow, value))}]"
        case bool():
            return str(value).lower()
    return "null" if value is None else str(value)


def _named(found: griffe.Object) -> Type:
    if isinstance(found, griffe.Class):
        return Type(f"<{found.path}>", classes=(found.path,))
    return type_of(expression(found.value), found.parent)


def _either(left: Type, right: Type) -> Type:
    return Type(f"{left}, {right}", (), left.classes + right.classes)


def _limited(kind: Type, notes: list[ast.expr]) -> Type:
    words, limits = kind.words, list(kind.limits)
    for note in notes:
        if ast.unparse(note) == "BeforeValidator(fraction)":
            words += " or fraction"
        elif ast.unparse(note) == "AfterValidator(known_norm)":
            names = expression(find("cembench.energy.norms.NORMS").value)
            words = ", ".join(f"`{flow(ast.literal_eval(name))}`" for name in names.keys)
        elif isinstance(note, ast.Call) and ast.unparse(note.func) == "Field":
            given = {word.arg: word.value for word in note.keywords}
            limits += [
                LIMITS[key].format(ast.literal_eval(value))
                for key, value in given.items()
                if key in LIMITS
            ]
    return Type(words, tuple(limits), kind.classes)


def _given(node: ast.expr) -> ast.expr | None:
    """Return the default inside `Field(…)` and the like, None for none."""
    if not isinstance(node, ast.Call) or ast.unparse(node.func) not in ("Field", "unless"):
        return node
    named = {word.arg: word.value for word in node.keywords}
    if isinstance(made := named.get("default_factory"), ast.Lambda):
        return made.body
    return node.args[0] if node.args else named.get("default")


def _value(node: ast.expr, scope: griffe.Object) -> Any:
    """Return plain YAML values of a default; an object is its name and what it was given."""
    match node:
        case ast.Name(name):
            constant = resolve(name, scope)
            return _value(expression(constant.value), constant.parent)
        case ast.Call(ast.Attribute(attr="parse"), [given]):
            return ast.literal_eval(given)
        case ast.Call(ast.Name(name), keywords=given):
            cls = resolve(name, scope)
            chosen = {str(word.arg): ast.literal_eval(word.value) for word in given}
            if "name" not in cls.members or not cls["name"].labels >= {"class-attribute"}:
                return chosen
            own = ast.literal_eval(str(cls["name"].value))
            return {"name": own, **chosen} if chosen else own
    return ast.literal_eval(node)

"""Settings classes as their source tells, by griffe: nothing is imported, torch is not needed."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import griffe
import yaml

ROOT = Path(__file__).parents[2]  # mkdocs-click imports the command line from there too
sys.path.insert(0, str(ROOT))

from cembench.util.display.keys import LIMITS, PLAIN, attributes, limited  # noqa: E402

REGISTRY = re.compile(r"^(\w+): Registry\[", re.M)
SECTIONED = {  # class variables of a section that say its key, and its type and default
    "cembench.evaluation.protocol.Protocol": ("key", "setting"),
    "cembench.evaluation.record.Record": ("result_key", "result"),
}

Link = Callable[[griffe.Object], str]


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


def registries() -> Iterator[str]:
    """Yield the import path of every registry of the package."""
    for file in (ROOT / "cembench").rglob("*.py"):
        module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for name in REGISTRY.findall(file.read_text(encoding="utf-8")):
            yield f"{module.removesuffix('.__init__')}.{name}"


def registry(path: str) -> tuple[str, griffe.Object, dict[str, griffe.Class]]:
    """Return what a registry holds: the word for it, the base class, and classes by name."""
    found = find(path)
    call = _parsed(found.value)
    assert isinstance(call, ast.Call)
    kind, base, entries = call.args
    places = ast.literal_eval(entries).items()
    classes = {name: find(place.replace(":", ".")) for name, place in places}
    return ast.literal_eval(kind), _resolve(base, found), classes


def keys(cls: griffe.Class) -> dict[str, griffe.Attribute]:
    """Return the keys of a settings class, its own before those of its bases."""
    found: dict[str, griffe.Attribute] = {}
    for owner in (cls, *cls.mro()):
        for name, member in owner.members.items():
            own = member.is_attribute and "instance-attribute" in member.labels
            if own and member.annotation is not None and not name.startswith("_"):
                found.setdefault(name, member)
    return found | {key.name: key for key in _section_keys(cls)}


def _section_keys(cls: griffe.Class) -> Iterator[griffe.Attribute]:
    """Yield the keys that the sections of an evaluation add to protocols and records."""
    if cls.path not in SECTIONED:
        return
    name, values = SECTIONED[cls.path]
    modules = find("cembench.evaluation.sections").modules
    for module in (modules[title] for title in sorted(modules)):
        for section in module.classes.values():
            if any(str(base).startswith("Section[") for base in section.bases):
                types = _parsed(section[values].value)
                assert isinstance(types, ast.Tuple)
                annotation, default = map(ast.unparse, types.elts)
                key = ast.literal_eval(str(section[name].value))
                yield griffe.Attribute(
                    key,
                    annotation=annotation,
                    value=default,
                    parent=module,
                    docstring=section.docstring,
                )


def text_of(found: griffe.Object) -> str:
    """Return a docstring without its attributes."""
    return "\n\n".join(s.value for s in _sections(found) if s.kind.value == "text")


def description(cls: griffe.Class, key: griffe.Attribute) -> str:
    """Return what a key, its class or the nearest base says of it; empty for nothing."""
    for owner in (cls, *cls.mro()):
        said = attributes(owner.docstring.value) if owner.docstring else {}
        if key.name in said:
            return said[key.name]
    return " ".join(text_of(key).split())


def type_of(key: griffe.Attribute, link: Link) -> str:
    """Return the type of a key in words, with a link to each settings class in it."""
    return _type(_parsed(key.annotation), key, link)


def default_of(key: griffe.Attribute) -> str:
    """Return the default of a key in YAML; empty where it is that of other settings, or nothing."""
    node = None if key.value is None else _parsed(key.value)
    if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Field", "optional_field"):
        named = {word.arg: word.value for word in node.keywords}
        made = named.get("default_factory")
        default = made.body if isinstance(made, ast.Lambda) else named.get("default")
        node = node.args[0] if node.args else default
    if node is None:
        return "*required*"
    value = _value(node, key)
    if value is None and "None" not in str(key.annotation):
        return "*depends*"
    return f"`{_yaml(value)}`" if value not in ({}, "") else ""


def _type(node: ast.expr, scope: griffe.Object, link: Link) -> str:
    match node:
        case ast.Constant(None):
            return "`null`"
        case ast.Name("bool"):
            return "`true`, `false`"
        case ast.Name(name) if name in PLAIN:
            return PLAIN[name]
        case ast.BinOp(left, ast.BitOr(), right):
            return ", ".join(_type(side, scope, link) for side in (left, right))
        case ast.Subscript(ast.Name("Literal"), given):
            values = given.elts if isinstance(given, ast.Tuple) else [given]
            return ", ".join(f"`{_yaml(ast.literal_eval(value))}`" for value in values)
        case ast.Subscript(ast.Name("list"), inner):
            return f"list: {_type(inner, scope, link)}"
        case ast.Subscript(ast.Name("dict"), ast.Tuple([_, inner])):
            return f"by name: {_type(inner, scope, link)}"
        case ast.Subscript(ast.Name("Annotated"), ast.Tuple([inner, *notes])):
            return _limited(_type(inner, scope, link), notes)
        case ast.Subscript(_, inner):
            return _type(inner, scope, link)
    found = _resolve(node, scope)
    if isinstance(found, griffe.Class):
        return link(found)
    return _type(_parsed(found.value), found, link)


def _limited(words: str, notes: list[ast.expr]) -> str:
    if any(ast.unparse(note) == "AfterValidator(known_norm)" for note in notes):
        norms = _parsed(find("cembench.energy.norms.NORMS").value)
        return ", ".join(f"`{ast.literal_eval(name)}`" for name in norms.keys)
    calls = [note for note in notes if isinstance(note, ast.Call)]
    if any(ast.unparse(call) == "BeforeValidator(fraction)" for call in calls):
        words += " or fraction"
    given = [word for call in calls for word in call.keywords if word.arg in LIMITS]
    limits = [LIMITS[word.arg].format(ast.literal_eval(word.value)) for word in given]
    return limited(words, [limit.replace(" ", "\N{NO-BREAK SPACE}") for limit in limits])


def _value(node: ast.expr, scope: griffe.Object) -> Any:
    """Return plain YAML values of a default; an object is its name and what it was given."""
    match node:
        case ast.Name():
            constant = _resolve(node, scope)
            return _value(_parsed(constant.value), constant)
        case ast.Call(ast.Attribute(attr="parse"), [given]):
            return ast.literal_eval(given)
        case ast.Call(ast.Name() as function, keywords=words):
            chosen: dict[str, Any] = {}
            for word in words:  # key=value, or **CONSTANT
                value = _value(word.value, scope)
                chosen |= value if word.arg is None else {word.arg: value}
            name = _resolve(function, scope).members.get("name")
            if name is None or name.value is None:
                return chosen
            title = ast.literal_eval(str(name.value))
            return {"name": title, **chosen} if chosen else title
    return ast.literal_eval(node)


def _yaml(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000)
    return text.removesuffix("...\n").strip()


def _resolve(name: ast.expr, member: griffe.Object) -> griffe.Object:
    """Return what a name means where a member was defined."""
    return find(member.parent.resolve(ast.unparse(name)))


def _parsed(value: Any) -> ast.expr:
    return ast.parse(str(value), mode="eval").body


def _sections(found: griffe.Object) -> list[griffe.DocstringSection]:
    return found.docstring.parse("google") if found.docstring else []

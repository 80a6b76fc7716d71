"""Commented settings: a YAML file with every key, what it means, its default and its choices."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection, Iterator, Mapping
from types import NoneType
from typing import Any, get_args

from pydantic.fields import FieldInfo

from cembench.reporting.keys import meanings, words_of
from cembench.util.display.keys import summary
from cembench.util.files.yaml import in_line
from cembench.util.registry import Registry, registries
from cembench.util.settings import Choice, Settings

WIDTH = 100
# What is filled in by training, names a column of results, or is said elsewhere.
UNUSED: dict[str, tuple[str, ...]] = {
    "Pretrained": ("weights", "method", "gradients", "labels", "recipe"),
    "Sampler": ("label",),
    "Mix": ("crop", "flip", "resized_crop"),
}
UNREAD = "memory"  # data that no file can name
LIMITS = re.compile(r",? < 2147483648|,? ≤ 100000000\.0")  # which nobody comes near


def commented(
    settings: Settings,
    given: Mapping[str, Any],
    left_out: Collection[str] = (),
    indent: int = 0,
    top: bool = True,
) -> str:
    """Return settings as YAML in which every key is explained.

    Keys that are given, or differ from their class's default, have a line of their own; the others
    are comments, `#key: value`, without a blank, so that they are chosen by deleting one character.

    Args:
        settings: all values.
        given: what a file that means the same would say, whose way of writing is kept.
        left_out: keys that are not written.
        indent: blanks before each line.
        top: whether a blank line stands before each key.
    """
    lines = _lines(settings, given, left_out, top)
    return "".join(f"{' ' * indent}{line}".rstrip() + "\n" for line in lines)


def _lines(
    settings: Settings, given: Mapping[str, Any], left_out: Collection[str] = (), top: bool = True
) -> Iterator[str]:
    cls = type(settings)
    told = meanings(cls)
    unused = {*left_out, *(key for owner in cls.__mro__ for key in UNUSED.get(owner.__name__, ()))}
    keys = {key: field for key, field in cls.model_fields.items() if key not in unused}
    chosen = [key for key, field in keys.items() if _chosen(key, field, settings, given)]
    if isinstance(settings, Choice):
        yield from _comment(summary(cls.__doc__))
        yield f"name: {settings.name}"
    elif not chosen:
        chosen = list(keys)[:1]  # a key without any below it would be no mapping
    for key, field in keys.items():
        value = getattr(settings, key)
        if top:
            yield ""
        yield from _comment(_about(field, told.get(key, ""), value, key in chosen))
        if isinstance(value, Settings):
            yield f"{key}:"
            yield from (f"  {line}" for line in _lines(value, _mapping(given.get(key)), (), False))
        elif key in chosen:
            yield f"{key}: {in_line(_plain(given.get(key, value)))}"
        else:
            yield f"#{key}: {in_line(_plain(value))}"


def _chosen(key: str, field: FieldInfo, settings: Settings, given: Mapping[str, Any]) -> bool:
    """Return whether a file has to say a key, or does."""
    depends = field.is_required() or (_default(field) is None and not _takes_none(field))
    if key in given or depends:  # on other keys, where no file has to say it
        return key in given
    return bool(_default(field) != getattr(settings, key))


def _takes_none(field: FieldInfo) -> bool:
    return NoneType in get_args(field.annotation)


def _default(field: FieldInfo) -> Any:
    return field.get_default(call_default_factory=True, validated_data={})


def _about(field: FieldInfo, meaning: str, value: Any, chosen: bool) -> str:
    """Return what a key means, and behind it its type, and its default where that is not shown."""
    told = []
    if isinstance(value, Choice) or not isinstance(value, Settings):
        words = LIMITS.sub("", _with_names(words_of(field)))
        told += [] if all(f"`{word}`" in meaning for word in words.split(", ")) else [words]
    default = "" if field.is_required() else _plain(_default(field))
    if chosen and default not in (None, "", {}) and not isinstance(_default(field), Settings):
        told.append(f"default {in_line(default)}")
    behind = f" ({'; '.join(told)})" if told else ""
    return f"{meaning.rstrip('.')}{behind}."


def _with_names(words: str) -> str:
    """Return the words for a type, with the names that a registry knows in place of its base."""
    for registry in registries():
        base = rf"\b{registry.base.__name__}\b"
        if re.search(base, words):
            words = re.sub(base, ", ".join(_offered(registry)), words)
    return words


def _offered(registry: Registry[Any]) -> list[str]:
    """Return the names of a registry; of samplers those that can make negatives."""
    found = {name: registry.find(name) for name in registry.names()}
    usable = {n for n, cls in found.items() if getattr(cls, "target_type", "class") == "class"}
    return sorted(usable - {UNREAD})


def _mapping(value: Any) -> Mapping[str, Any]:
    """Return settings as a mapping, which a name alone is short for."""
    if isinstance(value, str):
        return {"name": value}
    return value if isinstance(value, Mapping) else {}


def _plain(value: Any) -> Any:
    """Return a value as a file says it."""
    if isinstance(value, Settings):
        return value.dump()
    return [_plain(one) for one in value] if isinstance(value, list) else value


def _comment(text: str) -> Iterator[str]:
    yield from (f"# {line}" for line in textwrap.wrap(text, WIDTH - 6, break_on_hyphens=False))

"""Keys of settings as rows of a table: key, type, default, meaning."""

from __future__ import annotations

from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AfterValidator, BeforeValidator
from pydantic.fields import FieldInfo

from cembench.energy.norms import NORMS
from cembench.energy.threat import known_norm
from cembench.util.display.keys import LIMITS, PLAIN, attributes, limited
from cembench.util.files.yaml import in_line
from cembench.util.settings import Choice, Settings, fraction


def key_rows(cls: type[Settings]) -> list[list[str]]:
    """Return a row for each key of a settings class."""
    known = meanings(cls)
    return [
        [name, words_of(field), _default(field), known.get(name, "")]
        for name, field in cls.model_fields.items()
    ]


def meanings(cls: type[Settings]) -> dict[str, str]:
    """Return what the docstrings of a settings class and its bases say of each key."""
    known: dict[str, str] = {}
    for owner in reversed(cls.__mro__):
        known |= attributes(owner.__doc__)
    return known


def words_of(field: FieldInfo) -> str:
    """Return the type of a key in words, with its limits or choices."""
    return _words(field.annotation, field.metadata)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, Settings):
        value = _short(value)
    if value is None:
        return "null" if NoneType in get_args(field.annotation) else "depends"
    return "" if value in ({}, "") else in_line(value)


def _short(value: Settings) -> Any:
    """Return settings as a config would give them: a name, and what differs from defaults."""
    given = value.model_dump(mode="json", exclude_defaults=True)
    return value.name if isinstance(value, Choice) and given.keys() <= {"name"} else given


def _words(kind: Any, notes: Any = ()) -> str:
    """Return a type in words, with the limits among its annotations."""
    if AfterValidator(known_norm) in notes:
        return ", ".join(NORMS)
    words = _plain(kind)
    if BeforeValidator(fraction) in notes:
        words += " or fraction"
    return limited(words, _limits(notes))


def _plain(kind: Any) -> str:
    arguments = get_args(kind)
    match get_origin(kind):
        case None if kind in (None, NoneType):
            return "null"
        case None if kind is bool:
            return "true, false"
        case None:
            name = getattr(kind, "__name__", str(kind))
            return PLAIN.get(name, name)
        case origin if origin is Literal:
            return ", ".join(in_line(value) for value in arguments)
        case origin if origin in (Union, UnionType):
            return ", ".join(map(_words, arguments))
        case origin if origin is Annotated:
            return _words(arguments[0], arguments[1:])
        case origin if origin is dict:
            return f"by name: {_words(arguments[1])}"
        case origin if origin is list:
            return f"list: {_words(arguments[0])}"
        case _:
            return _words(arguments[0])


def _limits(notes: Any) -> list[str]:
    """Return limits in words; a field inside an annotation has its own."""
    found = []
    for note in notes:
        if isinstance(note, FieldInfo):
            found += _limits(note.metadata)
        given = {key: getattr(note, key, None) for key in LIMITS}
        found += [LIMITS[key].format(v) for key, v in given.items() if v is not None]
    return found

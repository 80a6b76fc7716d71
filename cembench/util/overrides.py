"""Overrides: settings merged over settings, and `key.inner=value` assignments."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from cembench.util.errors import ConfigError
from cembench.util.files.yaml import parse_yaml


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Merge one mapping over another: inner mappings too, unless the upper one has a `name`."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        joined = isinstance(old, dict) and isinstance(value, dict) and "name" not in value
        result[key] = merge(old, value) if joined and isinstance(old, dict) else value
    return result


def override(
    values: dict[str, Any], assignments: Sequence[str], option: str = "--set"
) -> dict[str, Any]:
    """Apply `key.inner=value` assignments, each value read as YAML, to a copy of the settings;
    `option` is where they were given.

    Raises:
        ConfigError: for an assignment without a key or into something that holds no settings.
    """
    result = copy.deepcopy(values)
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not all(key.strip().split(".")):
            raise ConfigError.single(f"{option} {assignment}: write it as key=value")
        value = parse_yaml(text, f"{option} {assignment}")
        put(result, key.strip(), value, f"{option} {assignment}")
    return result


def put(values: dict[str, Any], key: str, value: Any, source: str) -> None:
    """Set `key.inner` of settings to a value, in place; `key.0.inner` goes into a list.

    Raises:
        ConfigError: blaming `source`, for a key into something that holds no settings.
    """
    parts = key.split(".")
    inner: Any = values
    for part, after in pairwise(parts):
        place = _place(inner, part, source)
        if isinstance(inner, dict):
            inner.setdefault(part, {})
        if isinstance(inner[place], str):
            inner[place] = {"name": inner[place]}
        inner = inner[place]
        if not isinstance(inner, dict) and not (isinstance(inner, list) and after.isdigit()):
            raise ConfigError.single(f"{source}: '{part}' holds no settings")
    inner[_place(inner, parts[-1], source)] = value


def _place(values: Any, part: str, source: str) -> Any:
    """Return the key of a mapping, or the place in a list, that part of a key stands for."""
    if isinstance(values, dict):
        return part
    if int(part) >= len(values):
        raise ConfigError.single(f"{source}: no number {part} among {len(values)}, from 0")
    return int(part)

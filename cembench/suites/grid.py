"""The grid of a suite: every combination of some values is an experiment."""

from __future__ import annotations

import copy
import itertools
import math
import re
from collections.abc import Collection
from typing import Any

from cembench.util.errors import ConfigError
from cembench.util.overrides import put

MOST = 10_000


def points(
    grid: dict[str, list[Any]], shared: dict[str, Any], taken: Collection[str]
) -> dict[str, dict[str, Any]]:
    """Return the settings of each point of a grid by its name: values joined, a seed as `.s0`.

    Raises:
        ConfigError: for a name that two have or that is taken, and for a key that leads nowhere.
    """
    if not grid:
        return {}
    if (count := math.prod(map(len, grid.values()))) > MOST:
        raise ConfigError.single(f"{count} points; {MOST} at most", "grid")
    found: dict[str, dict[str, Any]] = {}
    for values in itertools.product(*grid.values()):
        chosen = dict(zip(grid, values, strict=True))
        name = _name(chosen)
        if name in found or name in taken or name == "leaderboards":
            what = f"two things are named {name}; rename or leave out one"
            raise ConfigError.single(what, "grid")
        found[name] = copy.deepcopy(shared)
        for key, value in chosen.items():
            if not all(key.split(".")):
                raise ConfigError.single("write it as key or key.inner", "grid", key)
            put(found[name], key, copy.deepcopy(value), f"grid: {key}")
    return found


def _name(chosen: dict[str, Any]) -> str:
    rest = [_word(key, value) for key, value in chosen.items() if key != "seed"]
    seed = [f"s{_word('seed', chosen['seed'])}"] if "seed" in chosen else []
    name = ".".join(["-".join(rest)] * bool(rest) + seed)
    if not name[:1].isalnum():
        raise ConfigError.single(f"no name can be made of {name}", "grid")
    return name


def _word(key: str, value: Any) -> str:
    """Return what names a value: itself, or the name in its settings."""
    if isinstance(value, dict):
        value = value.get("name")
        if not isinstance(value, str):
            raise ConfigError.single("settings need a name to be told apart by", "grid", key)
    if isinstance(value, list):
        value = "-".join(_word(key, inner) for inner in value)
    text = re.sub(r"[^A-Za-z0-9_.+-]+", "-", str(value))
    return text.lower() if isinstance(value, bool) else text

"""Recorded values beside the same values computed again."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cembench.util.display.format import number
from cembench.util.settings import Settings

RELATIVE = 1e-4  # another machine rounds otherwise
ABSOLUTE = 1e-6  # of figures near zero, such as a gain of nothing


@dataclass(frozen=True)
class Comparison:
    """One value, as recorded and as computed again; `None` where one of them is missing."""

    figure: str
    recorded: float | str | None
    again: float | str | None

    @property
    def agrees(self) -> bool:
        """Whether both are the same: counts and words exactly, other numbers but for rounding."""
        old, new = self.recorded, self.again
        if isinstance(old, float) and isinstance(new, float):
            return math.isclose(old, new, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
        return old == new


def shown(rows: Sequence[Comparison]) -> dict[str, list[str]]:
    """Return comparisons as a table for people: cells by heading."""
    return {
        "value": [row.figure for row in rows],
        "recorded": [_cell(row.recorded) for row in rows],
        "recomputed": [_cell(row.again) for row in rows],
        "": ["agrees" if row.agrees else "DIFFERS" for row in rows],
    }


def _cell(value: float | str | None) -> str:
    return value if isinstance(value, str) else number(value, "g")


def compared(
    group: str, recorded: Any, again: Any, later: Collection[str] = ()
) -> list[Comparison]:
    """Compare two sections of a record, value by value.

    Args:
        group: what they are called.
        recorded: settings, or mappings and lists of plain values; None where there is nothing.
        again: the same, computed again.
        later: keys that earlier versions did not record; where one is missing, nothing is said.

    Returns:
        How many values agree, then each one that differs; nothing where both are empty.
    """
    old, new = leaves(recorded or {}), leaves(again or {})
    keys = [*old, *(k for k in new if k not in old and not {*later}.intersection(k.split(".")))]
    rows = [Comparison(f"{group}: {key}", old.get(key), new.get(key)) for key in keys]
    differing = [row for row in rows if not row.agrees]
    count = len(rows)
    total = Comparison(f"{group}: values that agree", count, count - len(differing))
    return [total, *differing] if rows else []


def leaves(value: Any, place: str = "") -> dict[str, Any]:
    """Return the plain values inside mappings and lists, by their dotted place."""
    if isinstance(value, Settings):
        value = value.dump()
    if isinstance(value, list):
        value = dict(enumerate(value))
    if not isinstance(value, Mapping):
        return {place: value}
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= leaves(inner, f"{place}.{key}" if place else str(key))
    return found

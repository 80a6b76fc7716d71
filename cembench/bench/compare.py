"""Comparison of a benchmark's rows with committed ones."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cembench.util.errors import CembenchError
from cembench.util.files import read_bytes

KEY = ("work", "model", "network", "images", "precision")
COUNTS = ("operations", "synchronisations", "passes")
RATIO = "ratio"
CHANGE = 0.2  # by which a count may rise and a ratio may fall
SLACK = 0.05  # a step, by which any count may rise: it is a few calls before the first step

Rows = Sequence[dict[str, Any]]


def load_rows(file: Path) -> list[dict[str, Any]]:
    """Read the rows that `cembench bench --json` printed.

    Raises:
        CembenchError: for a file with anything else.
    """
    try:
        rows = json.loads(read_bytes(file))
    except ValueError as error:
        raise CembenchError(f"{file}: not JSON: {error}") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise CembenchError(f"{file}: not a list of rows, as `cembench bench --json` prints")
    return rows


def worse(rows: Rows, committed: Rows, ratios: bool) -> list[str]:
    """Return a line for each row that is worse than the committed one of the same name.

    A count is worse if it is more than a fifth larger, a ratio if it is more than a fifth smaller.
    Rows without a partner are not compared.

    Args:
        rows: what was measured.
        committed: what it is compared with.
        ratios: whether ratios are compared too; they depend on the machine.

    Raises:
        CembenchError: where no figure can be compared.
    """
    before = {_key(row): row for row in committed}
    pairs = [(before[_key(row)], row) for row in rows if _key(row) in before]
    names = [*COUNTS, RATIO] if ratios else [*COUNTS]
    if not any(_both(old, new, name) for old, new in pairs for name in names):
        hint = "" if ratios else "; for ratios give --ratios too"
        raise CembenchError(f"--compare: no row has a count that the file has as well{hint}")
    found = [(new, "; ".join(_changes(old, new, names))) for old, new in pairs]
    return [f"{_name(row)}: {text}" for row, text in found if text]


def _changes(old: dict[str, Any], new: dict[str, Any], names: Sequence[str]) -> Iterator[str]:
    for name in names:
        if not _both(old, new, name):
            continue
        before, now = old[name], new[name]
        if name == RATIO and now < (1 - CHANGE) * before:
            yield f"{name} {now}, committed {before}"
        if name != RATIO and now > (1 + CHANGE) * before + SLACK:
            yield f"{name} {now}, committed {before}"


def _both(old: dict[str, Any], new: dict[str, Any], name: str) -> bool:
    return old.get(name) is not None and new.get(name) is not None


def _name(row: dict[str, Any]) -> str:
    return f"{row['work']}, {row.get('network')}, {row.get('precision')}"


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in KEY)

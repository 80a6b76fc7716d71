"""Comparisons of what is named: records, runs or experiments, and their tables for people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cembench.evaluation.compare import Difference, compare_records, record_of
from cembench.evaluation.compare.seeds import SeedDifference, compare_seeds, seeds_of
from cembench.evaluation.record import Record
from cembench.util.display.format import number, percent, with_interval
from cembench.util.display.listing import Listing
from cembench.util.errors import CembenchError
from cembench.util.files.fetched import told
from cembench.util.files.layout import RunLayout
from cembench.util.files.names import hint


def compare(
    first: Path | Record, second: Path | Record, protocol: str | None = None
) -> Listing[Difference] | Listing[SeedDifference]:
    """Compare records image by image; experiments over seeds, where paths lack their `.s0`.

    Args:
        first: a record, its file, or a run folder; runs and records may lie in a collection.
        second: likewise.
        protocol: name of the records, if there are several.

    Raises:
        CembenchError: when something is missing, or was not measured in the same way.
    """
    names = [one.run if isinstance(one, Record) else told(one) for one in (first, second)]
    pattern = protocol or "*"
    if isinstance(first, Path) and isinstance(second, Path) and _seeded(first, second):
        return over_seeds(compare_seeds(first, second, pattern), *names)
    for one in (first, second):
        _require(one)
    pair = [one if isinstance(one, Record) else record_of(one, pattern) for one in (first, second)]
    return over_images(compare_records(*pair), *names)


def _seeded(first: Path, second: Path) -> bool:
    """Return whether paths mean runs with several seeds, not files or folders."""
    return not (first.exists() or second.exists()) and bool(seeds_of(first))


def _require(one: Path | Record) -> None:
    if isinstance(one, Path) and not one.exists() and RunLayout.collection(one) is None:
        missing = f"{one}: no such record or run; run `cembench eval` on a run"
        raise CembenchError(missing + hint(one))


def over_images(rows: Sequence[Difference], first: str, second: str) -> Listing[Difference]:
    """Return differences image by image, with their table; the names are its headings."""

    def shown(rows: Sequence[Difference]) -> dict[str, Any]:
        untried = {"untried": [row.untried for row in rows]} if any(r.untried for r in rows) else {}
        return {
            "metric": [row.figure for row in rows],
            first: [percent(row.first / row.images) for row in rows],
            _other(first, second): [percent(row.second / row.images) for row in rows],
            "difference": [
                with_interval(100 * row.difference, 100 * row.low, 100 * row.high, "+.1f")
                for row in rows
            ],
            "only first": [len(row.only_first) for row in rows],
            "only second": [len(row.only_second) for row in rows],
            "p": [number(row.p_value, ".2g") for row in rows],
            **untried,
        }

    return Listing(rows, shown)


def over_seeds(rows: Sequence[SeedDifference], first: str, second: str) -> Listing[SeedDifference]:
    """Return differences over seeds likewise."""

    def shown(rows: Sequence[SeedDifference]) -> dict[str, Any]:
        return {
            "figure": [row.figure for row in rows],
            first: [number(row.first, ".4g") for row in rows],
            _other(first, second): [number(row.second, ".4g") for row in rows],
            "difference": [
                with_interval(row.difference, row.low, row.high, "+.3g") for row in rows
            ],
            "seeds": [row.seeds for row in rows],
        }

    return Listing(rows, shown)


def _other(first: str, second: str) -> str:
    """Return the heading of the second column, which differs from that of the first."""
    return second if second != first else f"{second}, again"

"""Comparison of two experiments over paired seeds: every figure of their records."""

from __future__ import annotations

import math
import re
from pathlib import Path

from cembench.evaluation.compare import record_of, require_alike
from cembench.evaluation.record import Record
from cembench.evaluation.record.collection import read_collection
from cembench.evaluation.sections import SECTIONS
from cembench.evaluation.statistics import half_width
from cembench.util.errors import CembenchError
from cembench.util.files.layout import RunLayout
from cembench.util.settings import Settings

ENDS = ("_low", "_high", "_error")  # of an interval within one run


class SeedDifference(Settings):
    """A figure of two experiments, of the same seeds.

    Attributes:
        figure: column of the leaderboards.
        seeds: how many.
        first: mean over seeds; `second` likewise.
        difference: mean of the second minus the first.
        low: lower end of its 95 % t-interval over seeds; `high` is its upper end.
    """

    figure: str
    seeds: int
    first: float
    second: float
    difference: float
    low: float
    high: float


def seeds_of(path: Path) -> dict[int, Path]:
    """Return the run folders of an experiment, `PATH.s0` and so on, by seed."""
    named = re.compile(rf"{re.escape(path.name)}[.]s(\d+)")
    found = {run: named.fullmatch(run.name) for run in _beside(path)}
    return {int(match[1]): run for run, match in sorted(found.items()) if match}


def _beside(path: Path) -> set[Path]:
    """Return the runs beside a path, in a folder or in a collection."""
    if (collection := RunLayout.collection(path)) is not None:
        runs = {one.path.parent.parent for one in read_collection(collection)}
        return {run for run in runs if run.parent == path.parent}
    return set(path.parent.iterdir()) if path.parent.is_dir() else set()


def compare_seeds(first: Path, second: Path, protocol: str = "*") -> list[SeedDifference]:
    """Compare every figure that two experiments have in common, over the seeds of both.

    Args:
        first: the path of an experiment without the `.s0` of its runs.
        second: that of another one.
        protocol: name of the records, if there are several.

    Raises:
        CembenchError: with fewer than two seeds in common, or for records that are missing, failed
            or differ in images, threat model or protocol.
    """
    ours, theirs = seeds_of(first), seeds_of(second)
    common = sorted(ours.keys() & theirs.keys())
    if len(common) < 2:
        raise CembenchError(f"{first} and {second}: {len(common)} seeds in common; two are needed")
    pairs = [(_record(ours[s], protocol), _record(theirs[s], protocol)) for s in common]
    for pair in pairs:
        require_alike(pairs[0][0], pair[0])
        require_alike(*pair)
    figures = [(_figures(one), _figures(other)) for one, other in pairs]
    shared = [name for name in figures[0][0] if all(name in one for two in figures for one in two)]
    return [
        _difference(name, [(one[name], other[name]) for one, other in figures]) for name in shared
    ]


def _record(run: Path, protocol: str) -> Record:
    """Return the record of a run.

    Raises:
        CembenchError: when it says that its evaluation failed, and as `record_of`.
    """
    record = record_of(run, protocol)
    if record.error is not None:
        raise CembenchError(f"{run}: its evaluation failed: {record.error}")
    return record


def _figures(record: Record) -> dict[str, float]:
    """Return the figures of a record by column."""
    found: dict[str, float] = {}
    for section in SECTIONS:
        values = section.columns(getattr(record, section.result_key))
        found |= {
            name: value
            for name, value in values.items()
            if isinstance(value, float) and math.isfinite(value) and not name.endswith(ENDS)
        }
    return found


def _difference(name: str, pairs: list[tuple[float, float]]) -> SeedDifference:
    change = [second - first for first, second in pairs]
    count = len(pairs)
    middle, half = sum(change) / count, half_width(change)
    return SeedDifference(
        figure=name,
        seeds=count,
        first=sum(first for first, _ in pairs) / count,
        second=sum(second for _, second in pairs) / count,
        difference=middle,
        low=middle - half,
        high=middle + half,
    )

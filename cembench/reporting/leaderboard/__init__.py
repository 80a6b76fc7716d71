"""Leaderboards: records as tables of networks, of samplers, and of means over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from cembench.evaluation.record import Record
from cembench.evaluation.record.files import load_beside
from cembench.reporting.leaderboard.across import across_boards
from cembench.reporting.leaderboard.board import Board, write_boards
from cembench.reporting.leaderboard.robustness import robust_boards
from cembench.reporting.leaderboard.samples import sample_boards
from cembench.reporting.leaderboard.seeds import seed_boards
from cembench.util.errors import CembenchError
from cembench.util.files.checksums import Checksums
from cembench.util.files.layout import RunLayout
from cembench.util.files.names import hint

__all__ = ["Board", "build_boards", "find_records", "newest", "write_boards"]


def build_boards(records: Iterable[Record]) -> list[Board]:
    """Return the boards of records, so that no column mixes values measured in different ways.

    There is one for each data set and threat model with robust and generative columns, one for
    each kind of initial images with all samplers, and one with means over seeds where there are
    several; networks under several threat models have boards across these. Encoders are on the
    boards of samplers alone.
    """
    kept = newest(records)
    classifiers = [record for record in kept if record.kind == "classifier"]
    networks = [*robust_boards(classifiers), *sample_boards(kept), *seed_boards(classifiers)]
    return [*networks, *across_boards(classifiers)]


def newest(records: Iterable[Record]) -> list[Record]:
    """Return the last record of each checkpoint, data set, threat model and protocol."""
    last = {}
    for record in sorted(records, key=lambda record: record.created):
        last[(*_way(record), record.checkpoint_sha256 or record.weights_sha256)] = record
    return list(last.values())


def find_records(
    paths: Iterable[Path],
    current: Mapping[Path, Record] = MappingProxyType({}),
    *,
    verify: bool = False,
) -> dict[Path, Record]:
    """Read every record below run folders, or folders of them, by its file.

    A record whose checkpoint is another by now, since it was replaced or training went on, is
    marked as `replaced`; it is left out where there is the same one of that other checkpoint.

    Args:
        paths: the folders.
        current: records of checkpoints as they are now, which need not be read again.
        verify: read every checkpoint as a whole, rather than trust its seal or, where a record of
            an earlier version does not say it, that a file of the same size and times is the same.

    Raises:
        CembenchError: when a path holds none, or one is damaged.
    """
    records: dict[Path, Record] = {}
    with Checksums(verify=verify) as checksums:
        for path in paths:
            files = RunLayout.records_below(path)
            if not files:
                remedy = "run `cembench eval` on a checkpoint"
                raise CembenchError(f"no records below {path}; {remedy}{hint(path)}")
            found = {file: current.get(file) or load_beside(file, checksums) for file in files}
            records |= _without_outdated(found)
    return records


def _without_outdated(found: dict[Path, Record]) -> dict[Path, Record]:
    """Leave out records of replaced checkpoints that have been measured again."""
    present = {(k.parent, *_way(v)) for k, v in found.items() if not v.replaced}
    return {k: v for k, v in found.items() if not v.replaced or (k.parent, *_way(v)) not in present}


def _way(record: Record) -> tuple[str, ...]:
    """Return the run, and what was measured of it in which way."""
    way = (record.protocol_digest, record.fingerprint)
    return (record.run, record.dataset, str(record.threat), *way)

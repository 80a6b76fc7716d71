"""Leaderboards: records as tables of networks, of samplers, and of means over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from cembench.evaluation.record import Record, load_record, outdated
from cembench.reporting.leaderboard.board import Board, write_boards
from cembench.reporting.leaderboard.robustness import robust_boards
from cembench.reporting.leaderboard.samples import sample_boards
from cembench.reporting.leaderboard.seeds import seed_boards
from cembench.util.errors import CembenchError
from cembench.util.files.layout import RunLayout

__all__ = ["Board", "build_boards", "find_records", "newest", "write_boards"]


def build_boards(records: Iterable[Record]) -> list[Board]:
    """Return the boards of records, so that no column mixes values measured in different ways.

    There is one for each data set and threat model with robust and generative columns, one for
    each kind of initial images with all samplers, and one with means over seeds where there are
    several. Encoders are on the boards of samplers alone.
    """
    kept = newest(records)
    classifiers = [record for record in kept if record.kind == "classifier"]
    return [*robust_boards(classifiers), *sample_boards(kept), *seed_boards(classifiers)]


def newest(records: Iterable[Record]) -> list[Record]:
    """Return the last record of each checkpoint, data set, threat model and protocol."""
    last = {}
    for record in sorted(records, key=lambda record: record.created):
        where = (record.dataset, str(record.threat), record.protocol_digest, record.fingerprint)
        last[(*where, record.run, record.checkpoint_sha256 or record.weights_sha256)] = record
    return list(last.values())


def find_records(
    paths: Iterable[Path], current: Mapping[Path, Record] = MappingProxyType({})
) -> dict[Path, Record]:
    """Read every record below run folders, or folders of them, by its file.

    A record whose checkpoint has changed since, because training went on, is left out.

    Args:
        paths: the folders.
        current: records of checkpoints as they are now, which need not be read again.

    Raises:
        CembenchError: when a path holds none, or one is damaged.
    """
    records: dict[Path, Record] = {}
    for path in paths:
        files = RunLayout.records_below(path)
        found = {file: current.get(file) or load_record(file) for file in files}
        kept = {k: v for k, v in found.items() if k in current or not outdated(k, v)}
        if not kept:
            raise CembenchError(f"no records below {path}; run `cembench eval` on a checkpoint")
        records |= kept
    return records

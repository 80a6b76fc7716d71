"""Leaderboards: records as tables of networks, of samplers, and of means over seeds."""

from __future__ import annotations

from collections.abc import Iterable

from cembench.evaluation.record import Record
from cembench.reporting.leaderboard.across import across_boards
from cembench.reporting.leaderboard.board import Board, write_boards
from cembench.reporting.leaderboard.find import find_records, way
from cembench.reporting.leaderboard.robustness import robust_boards
from cembench.reporting.leaderboard.samples import sample_boards
from cembench.reporting.leaderboard.seeds import seed_boards

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
        last[(*way(record), record.checkpoint_sha256 or record.weights_sha256)] = record
    return list(last.values())

"""Record of a checkpoint, as the source of the results in an export."""

from __future__ import annotations

from pathlib import Path

from cembench.evaluation.record import Record, load_record
from cembench.models.source import ModelSource
from cembench.reporting.leaderboard.ranking import evidence
from cembench.util.errors import CembenchError
from cembench.util.layout import RunLayout


def find_record(source: ModelSource, given: Path | None) -> tuple[Record, Path]:
    """Return the record of a checkpoint, and its file.

    Args:
        source: the checkpoint.
        given: its file; unless given, of those beside the checkpoint the one with most images
            under AutoAttack, on the test split if there is one.

    Raises:
        CembenchError: when there is none, or the given one is of another checkpoint or failed.
    """
    places = [given] if given is not None else RunLayout.at(source.file).records()
    found = [(load_record(place), place) for place in places]
    own = [pair for pair in found if pair[0].checkpoint_sha256 == source.checksum]
    if given is not None and not own:
        raise CembenchError(f"{given}: of another checkpoint than {source.file}")
    measured = [pair for pair in own if pair[0].error is None]
    if not measured:
        where = given or source.file
        raise CembenchError(f"{where}: no figures to export; run `cembench eval` on the checkpoint")
    return max(measured, key=lambda pair: _rank(pair[0]))


def _rank(record: Record) -> tuple[bool, int, str]:
    return record.split == "test", evidence(record), record.created

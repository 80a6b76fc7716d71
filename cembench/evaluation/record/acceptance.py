"""Acceptance: the mark of a keeper beside a run on a shared board. It is no signature."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from cembench.util.errors import CembenchError
from cembench.util.files import read_bytes, sha256
from cembench.util.files.json_file import JsonFile, Sha256

ACCEPTED = "accepted.json"
Outcome = Literal["recounted", "not re-run"]
OUTCOMES = get_args(Outcome)


class Acceptance(JsonFile):
    """What a keeper's inspection came to.

    Attributes:
        format: version of the file.
        name: of the entry.
        outcome: whether figures were recounted, or could not be.
        record_sha256: of the record that was inspected.
        attacked: number of images that were attacked again.
        how: seeds, shares, versions and device, in sentences.
        cembench: the version that inspected it.
        created: when, UTC.
    """

    name: str
    outcome: Outcome
    record_sha256: Sha256
    attacked: int = 0
    how: list[str] = []
    cembench: str = ""
    created: str = ""


def acceptance_of(record: Path, folder: Path) -> Acceptance | None:
    """Return the acceptance beside a record; None without one, or where it is of another record.

    Args:
        record: the file of the record.
        folder: the run folder.
    """
    place = folder / ACCEPTED
    if not place.is_file():
        return None
    try:
        found = Acceptance.read(read_bytes(place), place)
    except CembenchError:
        return None
    return found if found.record_sha256 == sha256(record) else None

"""History of a training: the columns of `history.csv` as numbers, checked before they are shown."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

from cembench.evaluation.record import Record
from cembench.models.metadata import CheckpointMetadata
from cembench.util.errors import CembenchError
from cembench.util.files import read_bytes

History = Mapping[str, list[float]]
NEEDED = ("epoch", "loss")
LARGEST = 3.5e38  # beyond what training, in float32, can count or log


def read_history(path: Path, run: Record | CheckpointMetadata) -> History:
    """Return the history of a run, one value per epoch in each column; NaN where a cell is empty.

    Args:
        path: its file.
        run: what is known of the run besides.

    Raises:
        CembenchError: when the file is missing, damaged or of another run, and how that shows.
    """
    content = read_bytes(path)
    try:
        columns = _columns(content.decode())
        _require_own(columns, run)
    except (ValueError, csv.Error) as error:  # UnicodeDecodeError is a ValueError
        reason = "not a text file" if isinstance(error, UnicodeDecodeError) else error
        raise CembenchError(f"{path}: not readable: {reason}; restore or delete it") from error
    return columns


def _columns(text: str) -> dict[str, list[float]]:
    head, *rows = [*csv.reader(io.StringIO(text), strict=True)] or [[]]
    if lacking := [name for name in NEEDED if name not in head]:
        raise ValueError(f"no column {' and no column '.join(lacking)}")
    if not rows or not text.endswith("\n") or any(len(row) != len(head) for row in rows):
        raise ValueError("cut off, or rows of other lengths than its head")
    columns = {name: [_number(row[place]) for row in rows] for place, name in enumerate(head)}
    if not all(before < after for before, after in pairwise([0.0, *columns["epoch"], 1e9])):
        raise ValueError("its epochs do not rise")
    return columns


def _number(cell: str) -> float:
    try:
        number = float(cell or math.nan)
        if LARGEST < abs(number) < math.inf:
            raise ValueError
        return number
    except ValueError:
        raise ValueError(f"'{cell:.40}' is no number of a training") from None


def _require_own(columns: History, run: Record | CheckpointMetadata) -> None:
    """Refuse a history that lacks the epoch of the weights, or that cost other gradients.

    After a rollback the gradients of a checkpoint can be more than those of any epoch.
    """
    spent = columns.get("gradients", [])
    lacks = run.epoch not in (0, *columns["epoch"])
    if lacks or (spent and run.divergences == 0 and run.gradients not in (0, *spent)):
        raise ValueError("of another run")

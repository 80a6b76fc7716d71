"""Records as one table: collected from run folders, filtered, and written as a collection."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cembench.evaluation.record import Record
from cembench.evaluation.record.collection import MARKS, NEEDED, free_place
from cembench.reporting.leaderboard.find import iter_records, without_outdated
from cembench.reporting.records.columns import arrow_table
from cembench.reporting.records.names import resolve
from cembench.reporting.records.where import selected
from cembench.util.files.layout import RunLayout
from cembench.util.files.names import shown

if TYPE_CHECKING:
    import pyarrow as pa


def collect(
    paths: Iterable[Path], where: str = "", columns: Sequence[str] = (), *, verify: bool = False
) -> pa.Table:
    """Return a row for each record below run folders and in collections, copies once.

    Args:
        paths: run folders or folders of them, records, collections.
        where: which rows, as `selected` takes it; all unless given.
        columns: which columns, besides those that a collection needs; all unless given.
        verify: read every checkpoint as a whole to see whether it was replaced.

    Raises:
        CembenchError: when a path holds no record, one is damaged, or there is no such column.
    """
    paths = list(paths)
    found: dict[bytes, tuple[Path, Record]] = {}
    for path, one, content in iter_records(paths, verify=verify):
        found.setdefault(content, (path, one))
    kept = without_outdated(dict(found.values()))
    contents = {path: content for content, (path, _) in found.items()}
    places = _places(kept, paths)
    table = arrow_table((places[path], one, contents[path]) for path, one in kept.items())
    table = selected(table, where)
    chosen = [resolve(name, table.column_names) for name in columns]
    marks = [name for name in MARKS if name in table.column_names]
    return table.select(dict.fromkeys([*chosen, *NEEDED, *marks])) if columns else table


def _places(files: Iterable[Path], paths: Sequence[Path]) -> dict[Path, str]:
    """Return the path of each record in a collection: from the folder that was given on.

    So it says nothing of the machine.
    """
    found: dict[str, Path] = {}
    for file in files:
        found[free_place(Path(shown(str(_place(file, paths)))), found)] = file
    return {file: name for name, file in found.items()}


def _place(file: Path, paths: Sequence[Path]) -> Path:
    if (collection := RunLayout.collection(file)) is not None:
        return file.relative_to(collection)
    above = next((path for path in paths if path != file and file.is_relative_to(path)), None)
    folder = RunLayout.of_record(file).folder if above is None else above
    return Path(folder.resolve().name) / file.relative_to(folder)

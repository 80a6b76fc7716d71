"""Results from Python: records as tables, boards, a page and charts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cembench.api.arguments import checked
from cembench.evaluation.record import Record
from cembench.interop.hub.address import local_folder
from cembench.interop.hub.cache import local
from cembench.interop.hub.manifest import Part
from cembench.util.errors import CembenchError
from cembench.util.lazy import lazy_imports

with lazy_imports():
    from cembench.evaluation.record.collection import write_collection
    from cembench.reporting.leaderboard import build_boards, find_records, write_boards
    from cembench.reporting.leaderboard.board import Boards
    from cembench.reporting.page import write_plots, write_report
    from cembench.reporting.records import collect

if TYPE_CHECKING:
    import pandas as pd

Runs = str | Path | Record | Iterable[str | Path | Record]


@checked
def leaderboard(
    runs: Runs = ("runs",), out: str | Path | None = None, *, verify: bool = False
) -> Boards:
    """Rank records.

    Args:
        runs: records; run folders, folders of them or addresses, files of records and collections;
            one, or several.
        out: where tables are written as CSV and markdown, if anywhere.
        verify: read every checkpoint as a whole to see whether it is the one that was measured;
            its seal tells otherwise.

    Returns:
        A list of boards, which a notebook shows. Of each, `to_frame()` is a data frame of values
        with their intervals, `table` one of all columns, and `shown` one of texts for people.
        `to_frame()` of the list is that of the first board.

    Raises:
        CembenchError: when a folder holds no records, or a record is damaged.
    """
    given, paths = _divided(runs)
    boards = build_boards([*given, *find_records(paths, verify=verify).values()])
    if out is not None:
        write_boards(boards, Path(out))
    return Boards(boards)


@checked
def records(
    runs: str | Path | Iterable[str | Path] = ("runs",),
    where: str = "",
    *,
    to: str | Path | None = None,
) -> pd.DataFrame:
    """Return the records below folders as a data frame, a row each.

    Args:
        runs: run folders, folders of them or addresses, files of records and collections; one, or
            several.
        where: a condition on columns, such as `"method == 'at' and autoattack > 0.5"`.
        to: a parquet file where the table is written with the records themselves, if anywhere. It
            stands for them wherever records are read.

    Returns:
        The columns of the leaderboards, `path` and a few more, without those that are empty.

    Raises:
        CembenchError: when a folder holds no records, a record is damaged, or the condition names
            no column.
    """
    given, paths = _divided(runs)
    if given:
        raise CembenchError("runs: records in memory have no files; give them to leaderboard")
    table = collect(paths, where)
    if to is not None:
        write_collection(Path(to), table)
    frame: pd.DataFrame = table.drop_columns(["record"]).to_pandas(use_threads=False)
    return frame.dropna(axis="columns", how="all") if len(frame) else frame


@checked
def report(
    runs: str | Path | Iterable[str | Path] = ("runs",),
    out: str | Path = "report",
    *,
    images: int = 64,
) -> Path:
    """Write an HTML page of all records below folders, and return its path.

    Args:
        runs: run folders, folders of them or addresses, files of records and collections; one, or
            several.
        out: the folder of the page.
        images: test images of a run, if it kept adversarial ones.

    Raises:
        CembenchError: when a path holds no record, one is damaged, or the page cannot be written.
    """
    return write_report(_divided(runs)[1], local_folder(out), images=images)


@checked
def plot(
    runs: str | Path | Iterable[str | Path] = ("runs",),
    out: str | Path = "plots",
    *,
    form: Literal["png", "svg", "pdf"] = "png",
) -> list[Path]:
    """Write charts of all records below folders as files, and return their paths.

    `record.plot()` draws those of one record.

    Args:
        runs: run folders, folders of them or addresses, files of records and collections; one, or
            several.
        out: the folder of the files.
        form: of the charts; pictures of samples are PNG.

    Raises:
        CembenchError: when a path holds no record, one is damaged, or a file cannot be written.
    """
    if form not in ("png", "svg", "pdf"):
        raise CembenchError(f"form: give png, svg or pdf, got {form!r}")
    return write_plots(_divided(runs)[1], local_folder(out), form)


def _divided(runs: Any) -> tuple[list[Record], list[Path]]:
    """Return the records and the paths among what was given, which may be a single one."""
    listed = [runs] if isinstance(runs, str | Path | Record) else runs
    if not isinstance(listed, Iterable):
        raise CembenchError(f"runs: give records, folders of runs, or a list of them, got {runs!r}")
    given = list(listed)
    for one in given:
        if not isinstance(one, str | Path | Record):
            raise CembenchError(f"runs: a {type(one).__name__} is no record, file or folder")
    paths = [local(one, Part.RECORDS) for one in given if not isinstance(one, Record)]
    return [one for one in given if isinstance(one, Record)], paths

"""Results of a site: records with the files beside them, and tables without records."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cembench.evaluation.record import Record
from cembench.reporting.leaderboard import find_records
from cembench.reporting.page.runs import Run, ranked, read_run
from cembench.reporting.site.folder import MANIFEST
from cembench.reporting.site.names import page_name
from cembench.reporting.site.plain import PlainTable, read_plain
from cembench.util.errors import CembenchError
from cembench.util.files.layout import RunLayout


@dataclass(frozen=True)
class Results:
    """What a site shows.

    Attributes:
        runs: the records that are ranked, without pictures.
        tables: tables without records.
        problems: files that are not shown, and why.
    """

    runs: list[Run]
    tables: list[PlainTable]
    problems: list[str]

    @property
    def folders(self) -> dict[str, list[PlainTable]]:
        """The tables by the folder that they lie in."""
        found: dict[str, list[PlainTable]] = {}
        for table in sorted(self.tables, key=lambda table: "/" in table.title):
            found.setdefault(table.title.rpartition("/")[0], []).append(table)
        return found


def read_results(paths: Sequence[Path]) -> Results:
    """Read all records and tables below some paths.

    Args:
        paths: run folders, folders of them or of tables, records and collections of them.

    Raises:
        CembenchError: when a path holds neither, or a record is damaged.
    """
    found: dict[Path, Record] = {}
    files: dict[Path, str] = {}
    for path in paths:
        tables = {file: _title(file, path) for file in _tables_below(path)}
        some = bool(RunLayout.results_below(path))
        if not some and not tables:
            remedy = "run `cembench eval` on a checkpoint"
            raise CembenchError(f"no records and no tables below {path}; {remedy}")
        found |= find_records([path]) if some else {}
        files |= tables
    runs = [_run(path, record) for path, record in ranked(found).items()]
    read = [read_plain(file, title) for file, title in files.items()]
    known = {name for run in runs for name in keys(run.record)}
    tables_alone = [one for one in read if isinstance(one, PlainTable) and not one.within(known)]
    return Results(runs, tables_alone, [one for one in read if isinstance(one, str)])


def keys(record: Record) -> list[tuple[str, ...]]:
    """Return what rows of tables tell a record by; a row of means has its recipe."""
    name, drawn = str(record.protocol.get("name")), record.generation
    found = [(record.weights_sha256, record.protocol_digest), (record.recipe,)]
    if drawn is not None:  # tables of samplers say which real images they were compared with
        found.append((record.weights_sha256, name, drawn.reference_fingerprint))
    return found


def pages(runs: Iterable[Run]) -> dict[tuple[str, ...], Run]:
    """Return runs by what rows of tables tell their records by."""
    return {key: run for run in runs for key in keys(run.record) if all(key) and len(key) > 1}


def _run(path: Path, record: Record) -> Run:
    name = page_name(record.run, *_identity(record))
    run = read_run(path, record, name, pictures=False)
    return replace(run, page=f"../../runs/{name}/index.html")


def _identity(record: Record) -> list[str]:
    """Return what tells a ranked record from all others, in this build and the next."""
    weights = record.checkpoint_sha256 or record.weights_sha256
    way = record.dataset, str(record.threat), record.protocol_digest, record.fingerprint
    return [*way, weights]


def _tables_below(path: Path) -> list[Path]:
    """Return the CSV files below a folder that are neither of a run nor of a site; or a file."""
    if not path.is_dir():
        return [path] if path.suffix == ".csv" and path.is_file() else []
    files = RunLayout.tables_below(path)
    sites = {file.parent for file in files for above in file.parents if (above / MANIFEST).exists()}
    return [file for file in files if file.parent not in sites]


def _title(file: Path, path: Path) -> str:
    """Return what a table is called: its path from the folder that was given."""
    return file.relative_to(path if path.is_dir() else path.parent).with_suffix("").as_posix()

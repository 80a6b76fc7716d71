"""Records below run folders, and in collections."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType

from cembench.evaluation.record import Record
from cembench.evaluation.record.collection import read_collection
from cembench.evaluation.record.files import marked, parse_collected, parse_record
from cembench.util.errors import CembenchError
from cembench.util.files import read_bytes
from cembench.util.files.checksums import Checksums
from cembench.util.files.layout import RunLayout
from cembench.util.files.names import hint


def find_records(
    paths: Iterable[Path],
    current: Mapping[Path, Record] = MappingProxyType({}),
    *,
    verify: bool = False,
) -> dict[Path, Record]:
    """Read every record below run folders, or folders of them, by its path.

    A record whose checkpoint is another by now, since it was replaced or training went on, is
    marked as `replaced`; it is left out where there is the same one of that other checkpoint.
    Those of a collection begin with its path.

    Args:
        paths: the folders, records or collections.
        current: records of checkpoints as they are now, which need not be read again.
        verify: read every checkpoint as a whole, rather than trust its seal or, where a record of
            an earlier version does not say it, that a file of the same size and times is the same.

    Raises:
        CembenchError: when a path holds none, or one is damaged.
    """
    read = iter_records(paths, current, verify=verify)
    return without_outdated({path: record for path, record, _ in read})


def iter_records(
    paths: Iterable[Path],
    current: Mapping[Path, Record] = MappingProxyType({}),
    *,
    verify: bool = False,
) -> Iterator[tuple[Path, Record, bytes]]:
    """Yield records as `find_records` does, outdated ones too, with the content of their files.

    Those that are `current` have no content. A record that is both in a file and in collections
    counts once, and a file counts in place of what a collection beside it says of its path.
    """
    found = [_results(path) for path in paths]
    results = list(dict.fromkeys(file for files in found for file in files))
    files = [file for file in results if file.suffix == ".json"]
    seen: set[bytes] = set()
    with Checksums(verify=verify) as checksums:
        for file in files:
            if file in current:
                yield file, current[file], b""
                continue
            content = read_bytes(file)
            seen.add(sha256(content).digest())
            yield file, marked(parse_record(content, file), file, checksums), content
    present = {file.absolute() for file in files}
    for table in (file for file in results if file.suffix == ".parquet"):
        for one in read_collection(table):
            key = sha256(one.content).digest()
            if key not in seen and not present & {*_files(table, one.path)}:
                seen.add(key)
                yield one.path, parse_collected(one), one.content


def without_outdated(found: dict[Path, Record]) -> dict[Path, Record]:
    """Leave out records of replaced checkpoints that have been measured again."""
    present = {(k.parent, *way(v)) for k, v in found.items() if not v.replaced}
    return {k: v for k, v in found.items() if not v.replaced or (k.parent, *way(v)) not in present}


def way(record: Record) -> tuple[str, ...]:
    """Return the run, and what was measured of it in which way."""
    how = (record.protocol_digest, record.fingerprint)
    return (record.run, record.dataset, str(record.threat), *how)


def _results(path: Path) -> Sequence[Path]:
    """Return the records and collections that a path means."""
    results = RunLayout.results_below(path)
    if not results:
        remedy = "run `cembench eval` on a checkpoint"
        raise CembenchError(f"no records below {path}; {remedy}{hint(path)}")
    return results


def _files(table: Path, record: Path) -> tuple[Path, Path]:
    """Return where the file of a collected record lies if the collection lies where it was made.

    That is in the folder of runs, whose name the path of the record begins with, or beside it.
    """
    place, folder = record.relative_to(table), table.absolute().parent
    return folder / place, folder.parent / place

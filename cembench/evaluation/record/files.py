"""Files of records: written whole, read from this format and earlier ones, with their tables."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cembench.evaluation.record import FORMAT, Record
from cembench.evaluation.record.acceptance import acceptance_of
from cembench.evaluation.record.collection import Collected, read_collection
from cembench.evaluation.record.origin import Origin
from cembench.evaluation.statistics import Rate
from cembench.util.errors import CembenchError, ConfigError
from cembench.util.files import read_bytes, sha256
from cembench.util.files.checksums import Checksums
from cembench.util.files.layout import RunLayout
from cembench.util.files.parquet import read_frame, require_small, write_table
from cembench.util.files.seal import START, UNSEALED, is_sealed, seal, seal_at_start, write_sealed
from cembench.util.stages import stage

if TYPE_CHECKING:
    import pandas as pd

    from cembench.evaluation.record.adversarial import Adversarial

SEALED = 3  # the first format with a seal


def save_record(path: Path, record: Record, table: pd.DataFrame | None) -> Record:
    """Write the verdicts, then the record with their checksum, each whole or not at all.

    Returns:
        The record as written.
    """
    with stage("saving"):
        return _save_record(path, record, table)


def _save_record(path: Path, record: Record, table: pd.DataFrame | None) -> Record:
    checksum = ""
    if table is not None:
        write_table(RunLayout.table(path), table)
        checksum = sha256(RunLayout.table(path))
    record = record.model_copy(update={"table_sha256": checksum})
    write_sealed(path, _unsealed(record))
    record._origin = OnDisk(path)
    return record


def record_file(record: Record) -> bytes:
    """Return what the file of a record holds, with its seal."""
    return seal(_unsealed(record))


def _unsealed(record: Record) -> bytes:
    return json.dumps({"seal": UNSEALED, **record.dump()}, indent=2).encode() + b"\n"


def load_record(path: Path) -> Record:
    """Read a record of this format or an earlier one, from its file or a collection.

    Raises:
        CembenchError: when it is missing, damaged, edited, or of a later format that says more.
    """
    collection = RunLayout.collection(path)
    if collection is not None:
        return _in_collection(collection, path)
    return parse_record(read_bytes(path), path)


def parse_record(content: bytes, path: Path) -> Record:
    """Return the record in the content of a file, as `load_record` does; errors name the path."""
    version = 0
    try:
        values = json.loads(content)
        version = int(values["format"])
        if version >= SEALED and not is_sealed(content):
            raise ValueError("the seal does not fit")
        record = Record.parse(_migrated(values, version))
    except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError, ConfigError) as error:
        if version > FORMAT:
            raise CembenchError(
                f"{path}: record format {version} of a later cembench, which this one cannot read "
                f"(it knows formats up to {FORMAT}): {error}"
            ) from error
        raise CembenchError(
            f"{path}: not a record, damaged, or changed since it was written; evaluate again"
        ) from error
    record._origin = OnDisk(path)
    return record


def _migrated(values: dict[str, Any], version: int) -> dict[str, Any]:
    """Return the values of a record as the present format has them.

    What a format did not have yet has defaults, but for the number of images in `outside`.
    """
    density = values.get("density") or {}
    for scores in density.get("outside", {}).values():
        for score in scores.values():
            score.setdefault("others", values["figures"]["clean"]["images"])
    for shift in density.get("pushed", {}).values():
        shift["accuracy"] = {
            key: value for key, value in shift["accuracy"].items() if key in Rate.model_fields
        }
    rest = {key: value for key, value in values.items() if key != "seal"}
    return rest | {"format": max(version, FORMAT)}


def _in_collection(collection: Path, path: Path) -> Record:
    """Return the record of this path from a collection."""
    for one in read_collection(collection):
        if one.path == path:
            return parse_collected(one)
    raise CembenchError(f"{collection}: it holds no record {path.relative_to(collection)}")


def parse_collected(one: Collected) -> Record:
    """Return a record of a collection, marked as it was there.

    Raises:
        CembenchError: as `load_record`.
    """
    record = parse_record(one.content, one.path)
    record._replaced, record._accepted = one.replaced, one.accepted
    return record


def load_beside(path: Path) -> Record:
    """Read a record as `load_record` does; it is marked if its checkpoint has been `replaced`."""
    with Checksums() as checksums:
        return marked(load_record(path), path, checksums)


def marked(record: Record, path: Path, checksums: Checksums) -> Record:
    """Mark a record if its checkpoint has been `replaced`, or a keeper accepted it; return it.

    A checkpoint that is missing marks nothing: records may be shipped alone.

    Args:
        record: what the file says.
        path: the file.
        checksums: of checkpoints, for several records.
    """
    layout = layout_of(path, record)
    checkpoint, accepted = layout.checkpoint, acceptance_of(path, layout.folder)
    record._accepted = "" if accepted is None else accepted.outcome
    if record.checkpoint_sha256 and checkpoint.is_file():
        record._replaced = not _measured(record, checkpoint, checksums)
    return record


def _measured(record: Record, checkpoint: Path, checksums: Checksums) -> bool:
    """Return whether a checkpoint is the one that a record is of.

    Its seal is enough, unless the whole file is to be verified. Earlier records do not have it.
    """
    if record.checkpoint_seal and not checksums.verify:
        return record.checkpoint_seal == seal_at_start(read_bytes(checkpoint, START))
    return record.checkpoint_sha256 == checksums.of(checkpoint)


def layout_of(path: Path, record: Record) -> RunLayout:
    """Return the files of the checkpoint that a record is of: the folder's, or one by its name."""
    protocol = str(record.protocol.get("name"))
    own = "" if path.stem == protocol else path.stem.removesuffix(f".{protocol}")
    folder = RunLayout.of_record(path).folder
    return RunLayout(folder, f"{own}.safetensors") if own else RunLayout(folder)


def load_table(record: Path, known: Record | None = None) -> pd.DataFrame:
    """Read the table of verdicts beside a record, one row per image.

    Args:
        record: its file.
        known: the record, if it was read already.

    Raises:
        CembenchError: when it is missing, or not the one that the record was written with.
    """
    import pyarrow as pa

    if (collection := RunLayout.collection(record)) is not None:
        raise CembenchError(
            f"{record}: {collection.name} keeps records alone; give the run folder, which has the "
            "verdicts image by image"
        )
    path = RunLayout.table(record)
    content = read_bytes(path)
    known = known or load_record(record)
    try:
        if known.table_sha256 in ("", hashlib.sha256(content).hexdigest()):
            require_small(content)
            frame = read_frame(content)
            if known.table_sha256 or _fits(frame, known):
                return frame
    except (pa.ArrowException, OSError, ValueError):  # earlier formats have no checksum of it
        pass
    raise CembenchError(f"{path}: damaged, or not the table of {record}; evaluate again")


class OnDisk(Origin):
    """The files beside a record.

    Args:
        path: the record's own.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def verdicts(self, record: Record) -> pd.DataFrame:
        """Return the table of verdicts."""
        return load_table(self.path, record)

    def _images(self, record: Record, attack: str, table: pd.DataFrame) -> Adversarial:
        from cembench.evaluation.record.adversarial import read_adversarial

        return read_adversarial(self.path, attack, table)


def _fits(frame: pd.DataFrame, record: Record) -> bool:
    """Return whether a table without a checksum can be that of a record."""
    named = {"index", "label", "clean_pred"} <= set(frame)
    return named and all(len(frame) == figure.images for figure in record.figures.values())

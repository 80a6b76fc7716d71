"""Export of checkpoints in the formats of other tools."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Literal

from cembench.evaluation.record import Record
from cembench.evaluation.record.files import load_record
from cembench.interop.hub.cache import local
from cembench.interop.hub.manifest import Part
from cembench.models.source import ModelSource
from cembench.reporting.leaderboard.ranking import evidence
from cembench.util.errors import CembenchError, blaming
from cembench.util.files.names import file_name
from cembench.util.settings import nearest

Format = Literal["robustbench", "huggingface", "onnx"]
FORMATS: tuple[Format, ...] = ("robustbench", "huggingface", "onnx")


def export(
    checkpoint: str | Path,
    to: Format,
    out: str | Path | None = None,
    *,
    record: str | Path | None = None,
    fields: Mapping[str, object] | None = None,
) -> Path:
    """Write a checkpoint in the format of another tool, and return the file or folder written.

    Args:
        checkpoint: a file, a run folder, or an address.
        to: `robustbench`, the JSON file of its `model_info`; `huggingface`, a folder to upload with
            weights, config, model card and a grid of samples; `onnx`, images in [0, 1], N×C×H×W
            with any N, to outputs.
        out: the file or folder; `export/RUN…` unless given.
        record: the source of the results, if the format has any; unless given, the one beside the
            checkpoint with most images under AutoAttack.
        fields: what only its author knows: `name`, `authors`, `link`, `venue`, `licence`, ….

    Raises:
        CembenchError: when there is no such record, a field is unknown, a package is missing, or
            the export computes other outputs than the network.
    """
    if to not in FORMATS:
        raise CembenchError(f"--to {to}: {nearest(to, FORMATS)}")
    source = ModelSource.at(local(checkpoint, Part.RECORDS))
    with blaming("--out"):
        place = Path("export") / file_name(source.name) if out is None else Path(out)
    write = import_module(f"cembench.interop.exporting.{to}").write
    written: Path = write(source, place, record and Path(record), dict(fields or {}))
    return written


def merge_fields(fields: Mapping[str, object], defaults: Mapping[str, object]) -> dict[str, object]:
    """Return fields, with defaults for those that are not given.

    Raises:
        CembenchError: for a field that is not among them.
    """
    for key in fields:
        if key not in defaults:
            raise CembenchError(f"--set {key}: no such field; {nearest(key, defaults)}")
    return {**defaults, **fields}


def find_record(source: ModelSource, given: Path | None) -> tuple[Record, Path]:
    """Return the record of a checkpoint, and its file.

    Unless its file is given, it is of those beside the checkpoint the one with most images under
    AutoAttack, on the test split if there is one.

    Raises:
        CembenchError: when there is none, or the given one is of another checkpoint or failed.
    """
    places = [given] if given is not None else sorted(source.file.parent.glob("eval/*.json"))
    found = [(load_record(place), place) for place in places]
    own = [pair for pair in found if pair[0].checkpoint_sha256 == source.checksum]
    if given is not None and not own:
        raise CembenchError(f"{given}: of another checkpoint than {source.file}")
    measured = [pair for pair in own if pair[0].error is None]
    if not measured:
        where = given or source.file
        raise CembenchError(f"{where}: no figures to export; run `cembench eval` on the checkpoint")
    return max(
        measured, key=lambda pair: (pair[0].split == "test", evidence(pair[0]), pair[0].created)
    )

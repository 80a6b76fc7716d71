"""The record of an evaluation: every figure with what it takes to check it."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import PrivateAttr, create_model

from cembench.energy.threat import Threat
from cembench.evaluation import record_display
from cembench.evaluation.sections import RESULTS, SANITY
from cembench.evaluation.sections.sanity import ALWAYS
from cembench.evaluation.statistics import Rate
from cembench.util.errors import CembenchError, ConfigError
from cembench.util.files import read_bytes, sha256
from cembench.util.files.layout import RunLayout
from cembench.util.files.parquet import read_frame, write_table
from cembench.util.files.seal import UNSEALED, is_sealed, write_sealed
from cembench.util.settings import LabelUse, Settings, optional_field
from cembench.util.stages import stage

FORMAT = 4
SEALED = 3  # the first format with a seal


class Header(Settings):
    """What a record says besides its figures.

    Attributes:
        format: version of the file.
        run: name of the run folder, or of the file.
        method: what trained it, a probe beside what it probes.
        dataset: the name under which it is ranked.
        model: the architecture.
        seed: the seed of training.
        epoch: the epoch whose weights were evaluated.
        finished: whether training had come to its end.
        threat: the threat model of the attacks.
        protocol: the resolved protocol.
        protocol_digest: identifies everything in it that decides verdicts.
        split: `test` or `validation`.
        data: the resolved data set.
        fingerprint: SHA-256 of the attacked images.
        checkpoint_sha256: SHA-256 of the file that was read; empty if training left none.
        inputs: SHA-256 of the training split, the extractor's weights and the replay buffer.
        parameters: number of trained parameters.
        gradients: gradient evaluations of training, images times steps.
        kind: of the network; an encoder has figures of its samples alone.
        weights_sha256: digest of the weights alone, the same when a file says more of them.
        divergences: times that training was rolled back.
        labels: what training knew of the labels: `all`, `probe` or `none`.
        train_seconds: wall time of training as its history tells, if there is one.
        train_images_per_second: training images per second of it, where samples are measured.
        sample_images_per_second: by sampler, samples drawn per second of wall time, by the process
            that wrote the record; empty where it found all of them in the cache.
        flops: floating-point operations of a forward pass on one image, two for a multiplication
            and its addition; None where they cannot be counted.
        recipe: identifies the experiment whatever its seed; empty for weights trained elsewhere.
        table_sha256: SHA-256 of the table of verdicts beside it; empty where there is none.
        error: why there are no figures.
        no_gradient: why the network has no gradient with respect to its images, if it has none:
            its figures are those under black-box attacks alone.
        not_applicable: the attacks and their stages, the samplers and the other parts of the
            protocol that were left out for that; `samples` where no training images were given.
        warnings: what attacks warned of.
        environment: versions, device and threads.
        seconds: wall time of the evaluation.
        created: when it ended, UTC.
    """

    format: int = FORMAT
    kind: Literal["classifier", "encoder"] = "classifier"
    run: str
    method: str
    dataset: str
    model: str
    seed: int
    recipe: str = ""
    epoch: int = 0
    finished: bool = True
    threat: Threat
    protocol: dict[str, Any]
    protocol_digest: str
    split: str = "test"
    data: dict[str, Any]
    fingerprint: str
    checkpoint_sha256: str
    weights_sha256: str = ""
    labels: LabelUse = "all"
    inputs: dict[str, str] = {}
    parameters: int = 0
    gradients: int = 0
    divergences: int = 0
    train_seconds: float | None = None
    train_images_per_second: float | None = optional_field(None)
    sample_images_per_second: dict[str, float] = optional_field({})
    flops: int | None = optional_field(None)
    table_sha256: str = ""
    error: str | None = None
    no_gradient: str = optional_field("")
    not_applicable: list[str] = optional_field([])
    warnings: list[str] = []
    environment: dict[str, Any] = {}
    seconds: float = 0.0
    created: str = ""


if TYPE_CHECKING:
    import pandas as pd

    from cembench.evaluation.sections.robustness import Figure

    class Base(Header):
        """The keys of sections are those of `cembench.evaluation.sections`."""

        def __getattr__(self, key: str) -> Any: ...

else:
    Base = create_model("Base", __base__=Header, **RESULTS)


class Record(Base):
    """One checkpoint under one protocol: the header, and the result of each section.

    `figures`, `threats`, `minimal`, `generation`, `density`, `sanity`, `curve`, `counterfactuals`,
    `corruptions` and `certified` are results of sections; they are empty after an error, and where
    the protocol asks for nothing.
    """

    _replaced: bool = PrivateAttr(False)

    def __repr__(self) -> str:
        return record_display.line(self)

    def __str__(self) -> str:
        return record_display.line(self)

    def _repr_html_(self) -> str:
        return record_display.page(self)

    def to_frame(self) -> pd.DataFrame:
        """Return a row for each accuracy: clean, under each attack, and in the worst case.

        Under further threat models it is that of `l2-0.5 pgd`, and `union` is that under all.
        """
        return record_display.frame(self)

    @property
    def accuracies(self) -> dict[str, Figure]:
        """Every accuracy by name: `figures`, those under further threat models, and `union`."""
        return {**self.figures, **({} if self.threats is None else self.threats.figures)}

    @property
    def replaced(self) -> bool:
        """Whether the checkpoint beside its file is not the one that was measured.

        Only a record that `load_beside` returned knows; no file says it.
        """
        return self._replaced

    @property
    def sanity_failed(self) -> list[str]:
        """The names of the sanity checks that fail; `no_gradient` comes first, if it has none."""
        failed = [check.name for check in SANITY.of(self) if check.verdict == "fail"]
        return ["no_gradient"] * bool(self.no_gradient) + failed

    @property
    def unchecked(self) -> bool:
        """Whether it has accuracies under attack, but no verdict of a check that looks at them.

        The protocol asks for none, or too few images were classified correctly.
        """
        asked = [check for check in SANITY.of(self) if check.name not in ALWAYS]
        made = any(check.verdict != "skipped" for check in asked)
        return len(self.figures) > 1 and "sanity" in self.protocol and not made


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
    text = json.dumps({"seal": UNSEALED, **record.dump()}, indent=2)
    write_sealed(path, text.encode() + b"\n")
    return record


def load_record(path: Path) -> Record:
    """Read a record of this format or an earlier one.

    Raises:
        CembenchError: when it is missing, damaged, edited, or of a later format that says more.
    """
    content, version = read_bytes(path), 0
    try:
        values = json.loads(content)
        version = int(values["format"])
        if version >= SEALED and not is_sealed(content):
            raise ValueError("the seal does not fit")
        return Record.parse(_migrated(values, version))
    except (ValueError, KeyError, TypeError, RecursionError, ConfigError) as error:
        if version > FORMAT:
            raise CembenchError(
                f"{path}: record format {version} of a later cembench, which this one cannot read "
                f"(it knows formats up to {FORMAT}): {error}"
            ) from error
        raise CembenchError(
            f"{path}: not a record, damaged, or changed since it was written; evaluate again"
        ) from error


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


def load_beside(path: Path) -> Record:
    """Read a record as `load_record` does; it is marked if its checkpoint has been `replaced`.

    A checkpoint that is missing marks nothing: records may be shipped alone.
    """
    record = load_record(path)
    checkpoint = layout_of(path, record).checkpoint
    if record.checkpoint_sha256 and checkpoint.is_file():
        found = checkpoint.stat()
        now = _sha256(checkpoint, found.st_size, found.st_mtime_ns)
        record._replaced = record.checkpoint_sha256 != now
    return record


def layout_of(path: Path, record: Record) -> RunLayout:
    """Return the files of the checkpoint that a record is of: the folder's, or one by its name."""
    protocol = str(record.protocol.get("name"))
    own = "" if path.stem == protocol else path.stem.removesuffix(f".{protocol}")
    folder = RunLayout.of_record(path).folder
    return RunLayout(folder, f"{own}.safetensors") if own else RunLayout(folder)


@lru_cache
def _sha256(path: Path, size: int, changed: int) -> str:
    """Return the checksum of a file, which this process reads once for all of its records."""
    return sha256(path)


def load_table(record: Path) -> pd.DataFrame:
    """Read the table of verdicts beside a record, one row per image.

    Raises:
        CembenchError: when it is missing, or not the one that the record was written with.
    """
    import pyarrow as pa

    path = RunLayout.table(record)
    content = read_bytes(path)
    known = load_record(record)
    try:
        if known.table_sha256 in ("", hashlib.sha256(content).hexdigest()):
            frame = read_frame(content)
            if known.table_sha256 or _fits(frame, known):
                return frame
    except (pa.ArrowException, OSError, ValueError):  # earlier formats have no checksum of it
        pass
    raise CembenchError(f"{path}: damaged, or not the table of {record}; evaluate again")


def _fits(frame: pd.DataFrame, record: Record) -> bool:
    """Return whether a table without a checksum can be that of a record."""
    named = {"index", "label", "clean_pred"} <= set(frame)
    return named and all(len(frame) == figure.images for figure in record.figures.values())

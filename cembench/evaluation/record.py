"""The record of an evaluation: every figure with what it takes to check it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pandas as pd

from cembench.errors import CembenchError, ConfigError
from cembench.evaluation.figures import CurvePoint, Density, Figure, Generation, SanityCheck
from cembench.files import digest, read_bytes, write_bytes, write_text
from cembench.settings import Settings
from cembench.threat import Threat

FORMAT = 3


class Record(Settings):
    """One checkpoint under one protocol.

    Attributes:
        run: name of the run folder, or of the file.
        seed: the seed of training.
        epoch: the epoch whose weights were evaluated.
        finished: whether training had come to its end.
        threat: the threat model of the attacks.
        protocol: the resolved protocol.
        protocol_digest: identifies everything in it that decides verdicts.
        split: `test` or `validation`.
        data: the resolved data set, and `fingerprint`, the SHA-256 of the attacked images.
        checkpoint_sha256: SHA-256 of the file that was read; empty if training left none.
        inputs: SHA-256 of the training split, the extractor's weights and the replay buffer.
        parameters: number of trained parameters.
        gradients: gradient evaluations of training, images times steps.
        divergences: times that training was rolled back.
        train_seconds: wall time of training as its history tells, if there is one.
        recipe: identifies the experiment whatever its seed; empty for weights trained elsewhere.
        figures: by name: `clean`, each attack's label, `worst_case`; empty after an error.
        generation: what its samples score, if the protocol has any.
        density: calibration, energies and out-of-distribution scores, if the protocol wants them.
        sanity: by which tests its robustness is no illusion, if the protocol has them.
        curve: accuracy at rising radii, if the protocol wants it.
        error: why there are no figures.
        warnings: what attacks warned of.
        environment: versions, device and threads.
        seconds: wall time of the evaluation.
        created: when it ended, UTC.
    """

    format: int = FORMAT
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
    inputs: dict[str, str] = {}
    parameters: int = 0
    gradients: int = 0
    divergences: int = 0
    train_seconds: float | None = None
    figures: dict[str, Figure] = {}
    generation: Generation | None = None
    density: Density | None = None
    sanity: list[SanityCheck] = []
    curve: list[CurvePoint] = []
    error: str | None = None
    warnings: list[str] = []
    environment: dict[str, Any] = {}
    seconds: float = 0.0
    created: str = ""


def recipe_of(config: dict[str, Any]) -> str:
    """Return what identifies a resolved experiment whatever its seed; empty for none."""
    rest = {key: value for key, value in config.items() if key != "seed"}
    return digest(rest) if rest else ""


def save_record(path: Path, record: Record, table: pd.DataFrame | None) -> None:
    """Write the verdicts beside the record, then the record, each whole or not at all."""
    if table is not None:
        stream = io.BytesIO()
        table.to_parquet(stream, index=False)
        write_bytes(path.with_suffix(".parquet"), stream.getvalue())
    write_text(path, json.dumps(record.dump(), indent=2) + "\n")


def load_record(path: Path) -> Record:
    """Read a record.

    Raises:
        CembenchError: when it is missing, damaged or of another format version.
    """
    try:
        values = json.loads(read_bytes(path))
        version = values["format"]
        if version == FORMAT:
            return Record.parse(values)
    except (ValueError, KeyError, TypeError, ConfigError) as error:
        raise CembenchError(f"{path}: not a record, or damaged; evaluate again") from error
    raise CembenchError(
        f"{path}: record format {version}, this cembench reads {FORMAT}; delete it, evaluate again"
    )


def load_table(record: Path) -> pd.DataFrame:
    """Read the table of verdicts beside a record, a row an image.

    Raises:
        CembenchError: when it is missing or damaged.
    """
    path = record.with_suffix(".parquet")
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise CembenchError(f"{path}: missing or damaged; evaluate again") from error

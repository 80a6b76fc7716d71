"""The record of an evaluation: every figure with what it takes to check it."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import pandas as pd

from cembench.errors import CembenchError, ConfigError
from cembench.files import read_bytes, write_bytes, write_text
from cembench.settings import Settings
from cembench.threat import Threat

FORMAT = 1


class Figure(Settings):
    """An accuracy as a count.

    Attributes:
        correct: images classified as labelled, under attack where there is one.
        images: images in all.
        correct_8bit: the same with all images rounded to 8 bits.
        low: lower end of the 95 % Wilson interval of the accuracy.
        high: its upper end.
        won: for an attack, the images that each of its stages broke.
        seconds: wall time of the attack.
    """

    correct: int
    correct_8bit: int
    images: int
    low: float
    high: float
    won: dict[str, int] = {}
    seconds: float = 0.0

    @property
    def accuracy(self) -> float:
        """The share of correct images."""
        return self.correct / self.images

    @property
    def accuracy_8bit(self) -> float:
        """The same for 8-bit images."""
        return self.correct_8bit / self.images


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
        data: the resolved data set, and `fingerprint`, the SHA-256 of the attacked images.
        checkpoint_sha256: SHA-256 of the file that was read.
        parameters: number of trained parameters.
        gradients: gradient evaluations of training, images times steps.
        divergences: times that training was rolled back.
        train_seconds: wall time of training as its history tells, if there is one.
        figures: by name: `clean`, each attack's label, `worst_case`; empty after an error.
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
    epoch: int = 0
    finished: bool = True
    threat: Threat
    protocol: dict[str, Any]
    protocol_digest: str
    data: dict[str, Any]
    fingerprint: str
    checkpoint_sha256: str
    parameters: int = 0
    gradients: int = 0
    divergences: int = 0
    train_seconds: float | None = None
    figures: dict[str, Figure] = {}
    error: str | None = None
    warnings: list[str] = []
    environment: dict[str, Any] = {}
    seconds: float = 0.0
    created: str = ""


def wilson(correct: int, images: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the 95 % Wilson interval of a proportion (Wilson 1927)."""
    share, shrink = correct / images, 1 + z * z / images
    middle = (share + z * z / (2 * images)) / shrink
    half = z * math.sqrt(share * (1 - share) / images + z * z / (4 * images * images)) / shrink
    return max(0.0, middle - half), min(1.0, middle + half)


def count(table: pd.DataFrame, attacks: list[str], seconds: dict[str, float]) -> dict[str, Figure]:
    """Count every figure from a table of verdicts: a row an image."""
    right = table["clean_pred"] == table["label"]
    right_8bit = right & (table["clean_8bit_pred"] == table["label"])
    figures = {"clean": _figure(right, right_8bit)}
    worst, worst_8bit = right, right_8bit
    for attack in attacks:
        standing = right & ~table[f"{attack}_broken"]
        standing_8bit = right_8bit & ~table[f"{attack}_broken_8bit"]
        won = table.loc[table[f"{attack}_broken"], f"{attack}_by"].value_counts()
        figures[attack] = _figure(standing, standing_8bit).model_copy(
            update={
                "won": {str(stage): int(number) for stage, number in won.items()},
                "seconds": round(seconds.get(attack, 0.0), 3),
            }
        )
        worst, worst_8bit = worst & standing, worst_8bit & standing_8bit
    return {**figures, "worst_case": _figure(worst, worst_8bit)}


def _figure(correct: pd.Series, correct_8bit: pd.Series) -> Figure:
    low, high = wilson(int(correct.sum()), len(correct))
    return Figure(
        correct=int(correct.sum()),
        correct_8bit=int(correct_8bit.sum()),
        images=len(correct),
        low=low,
        high=high,
    )


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
    raise CembenchError(f"{path}: record format {version}, this cembench reads {FORMAT}")

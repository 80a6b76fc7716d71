"""Verification of a record: every figure computed again from checkpoint, data and artifacts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from cembench.data.roots import require_named
from cembench.evaluation.artifacts import require_artifacts
from cembench.evaluation.context import EvaluationContext, measured_of, prepare
from cembench.evaluation.diff import ABSOLUTE, RELATIVE, Comparison, compared
from cembench.evaluation.measure import measure
from cembench.evaluation.measures.samples import SavedSamples
from cembench.evaluation.measures.saved_attacks import SavedAttacks
from cembench.evaluation.protocol import Protocol
from cembench.evaluation.record import Record
from cembench.evaluation.record.files import load_record, load_table
from cembench.evaluation.sections import SAMPLES, SECTIONS
from cembench.models.source import ModelSource
from cembench.util.errors import CembenchError
from cembench.util.files import sha256
from cembench.util.files.layout import RunLayout

# What a record says of training and of its protocol, and checkpoint and protocol say too.
SAID = {"method", "dataset", "model", "seed", "recipe", "epoch", "finished", "threat", "split"}
SAID |= {"protocol_digest", "gradients", "divergences", "parameters", "labels"}
SAID |= {"kind", "weights_sha256", "no_gradient", "not_applicable"}
LATER = ("clean_nll", "clean_brier", "_outside")  # ends of columns that earlier tables lack


def verify_record(
    path: Path,
    checkpoint: Path,
    device: str = "cpu",
    inception_weights: Path | None = None,
    data_root: str | None = None,
) -> list[Comparison]:
    """Measure a record again and compare every figure.

    Accuracies come from the saved adversarial images, scores from the saved samples; energies and
    calibration, sanity checks and the curve from the checkpoint and the data alone. Wall times and
    rates are left out.

    Args:
        path: the record.
        checkpoint: the checkpoint, or its run folder.
        device: where to compute; randomness of a GPU is not that of a CPU.
        inception_weights: weights for the extractors inception and dinov2.
        data_root: the folder of the data, if it is not the one of training.

    Raises:
        CembenchError: when the record is of another checkpoint or other data, or its artifacts are
            missing or damaged.
    """
    context, record = _reopen(path, checkpoint, torch.device(device), inception_weights, data_root)
    rows, table = recounted(context, record, path)
    return rows + (_verdicts(load_table(path), table) if record.kind == "classifier" else [])


def recounted(
    context: EvaluationContext, record: Record, path: Path
) -> tuple[list[Comparison], pd.DataFrame]:
    """Measure a record again in its context.

    Returns:
        Every figure beside the recorded one, and the table of verdicts.

    Raises:
        CembenchError: when its artifacts are missing or damaged.
    """
    table = load_table(path) if record.kind == "classifier" else pd.DataFrame()
    samples = SavedSamples(context, path, SAMPLES.of(record))
    found = measure(context, SavedAttacks(path, context.rows, table), samples)
    again = context.header.model_copy(update={**context.facts(), **found.results})
    run = [one.model_dump(include=SAID) for one in (record, again)]
    rows = compared("run", *run)
    for section in SECTIONS:
        rows += section.compare(section.of(record), section.of(again))
    return [*rows, *samples.checks], found.table


def _reopen(
    path: Path,
    checkpoint: Path,
    device: torch.device,
    inception_weights: Path | None,
    data_root: str | None,
) -> tuple[EvaluationContext, Record]:
    record = load_record(path)
    if record.error is not None:
        raise CembenchError(f"{path}: holds no figures: {record.error}")
    file = RunLayout.at(checkpoint).checkpoint
    if sha256(file) != record.checkpoint_sha256:
        raise CembenchError(f"{path}: of another checkpoint than {file}")
    source = ModelSource.at(file)
    protocol = Protocol.parse(record.protocol)
    if protocol.passes > 1:
        raise CembenchError(f"{path}: verdicts on a randomised network cannot be taken twice")
    for other in protocol.other_data:
        require_named(other, path, "")
    require_artifacts(path, measured_of(protocol, source.metadata, source.file))
    context = prepare(
        source, protocol, device, data_root=data_root, inception_weights=inception_weights
    )
    if context.split.fingerprint != record.fingerprint:
        raise CembenchError("the attacked images are not those of the record")
    return context, record


def comparable(recorded: pd.DataFrame, again: pd.DataFrame) -> list[str]:
    """Return the columns of a table of verdicts that a recorded one has to have as well."""
    lacking = {c for c in again.columns if c.endswith(LATER)} - {*recorded.columns}
    return [c for c in again.columns if not c.endswith("_by") and c not in lacking]


def _verdicts(recorded: pd.DataFrame, again: pd.DataFrame) -> list[Comparison]:
    """Compare tables of verdicts image by image, but for the stages, which are not run again."""
    columns = comparable(recorded, again)
    if len(recorded) != len(again) or not set(columns) <= set(recorded.columns):
        return [Comparison("images in the table", len(recorded), len(again))]
    same = np.logical_and.reduce([_same(recorded[c], again[c]) for c in columns])
    return [Comparison("images whose verdicts agree", len(recorded), int(same.sum()))]


def _same(old: pd.Series, new: pd.Series) -> np.ndarray:
    if new.dtype.kind == "f":
        return np.isclose(old, new, rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True)
    return (old == new).to_numpy()

"""Verify a record: measure it again from the checkpoint, the data and the saved artifacts."""

from __future__ import annotations

from pathlib import Path

import torch

from cembench.evaluation.context import reopen
from cembench.evaluation.diff import Comparison, compared, verdicts
from cembench.evaluation.measure import measure
from cembench.evaluation.measures.robustness import SavedAttacks
from cembench.evaluation.measures.samples import SavedSamples
from cembench.evaluation.sections import SAMPLES, SECTIONS

# What a record says of training and of its protocol, and checkpoint and protocol say too.
SAID = {"method", "dataset", "model", "seed", "recipe", "epoch", "finished", "threat", "split"}
SAID |= {"protocol_digest", "gradients", "divergences", "parameters", "labels"}
SAID |= {"kind", "weights_sha256"}


def verify_record(
    path: Path, checkpoint: Path, device: str = "cpu", inception_weights: Path | None = None
) -> list[Comparison]:
    """Measure a record again and compare every figure.

    Accuracies come from the saved adversarial images, scores from the saved samples; energies and
    calibration, sanity checks and the curve from the checkpoint and the data alone. Wall times are
    left out.

    Args:
        path: the record.
        checkpoint: the checkpoint, or its run folder.
        device: where to compute; randomness of a GPU is not that of a CPU.
        inception_weights: weights for the extractor inception.

    Raises:
        CembenchError: when the record is of another checkpoint or other data, or its artifacts are
            missing or damaged.
    """
    context, record, table = reopen(path, checkpoint, torch.device(device), inception_weights)
    samples = SavedSamples(context, path, SAMPLES.of(record))
    found = measure(context, SavedAttacks(path, context.rows, table), samples)
    again = context.header.model_copy(update={**context.facts(), **found.results})
    run = [one.model_dump(include=SAID) for one in (record, again)]
    rows = compared("run", *run)
    for section in SECTIONS:
        rows += section.compare(section.of(record), section.of(again))
    if record.kind == "classifier":
        rows += verdicts(table, found.table)
    return [*rows, *samples.checks]

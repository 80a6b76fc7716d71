"""Accuracy and density of the attacked images under common corruptions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pandas as pd
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from cembench import energy
from cembench.data.corruptions import parameters_of
from cembench.data.resize import eight_bit
from cembench.evaluation.chunk import Chunk, Columns
from cembench.evaluation.corrupted import available, images_of
from cembench.evaluation.measure import Measurement
from cembench.evaluation.sections.corruption_results import (
    CorruptedImages,
    Corruptions,
    MeanAccuracy,
    SeverityFigures,
    title_of,
)
from cembench.evaluation.sections.corruptions import CorruptionsConfig
from cembench.evaluation.statistics import Z, mean_std, rate, widened, wilson

CLEAN = "corrupted-none"


def chunk_columns(config: CorruptionsConfig, chunk: Chunk) -> Columns:
    """Return `corrupted-NAME-SEVERITY_pred` and `…_lse`, and those of `corrupted-none`."""
    clean = eight_bit(chunk.split).batch(torch.arange(len(chunk.split)))
    columns: Columns = {f"{CLEAN}_{key}": v for key, v in _seen(chunk, clean).items()}
    images = images_of(config, chunk.split, clean, chunk.rows, chunk.protocol.seed)
    for name in available(config, config.asked):
        chunk.bar.advance(0, name)
        make = partial(_columns, chunk, name, config.severities, images)
        kept = f"corruptions.{name}.{chunk.start}"
        columns |= make() if chunk.cache is None else chunk.cache.obtain(kept, make)
    chunk.target.plain.require_finite("on corrupted images")
    return columns


def _columns(
    chunk: Chunk, name: str, severities: list[int], images: Callable[[str, int], Tensor]
) -> dict[str, Tensor]:
    return {
        f"{_column(name, severity)}_{key}": values
        for severity in severities
        for key, values in _seen(chunk, images(name, severity)).items()
    }


@torch.no_grad()
def _seen(chunk: Chunk, images: Tensor) -> dict[str, Tensor]:
    """Return what the network reads images as, given as bytes, and their LSE f(x, ·)."""
    x, target = images.float() / 255, chunk.target
    out = target.verifier(x)
    logits = out if target.verifier is target.plain else target.plain(x)
    return {"pred": out.argmax(1).cpu(), "lse": energy.marginal(logits).cpu()}


def _column(name: str, severity: int) -> str:
    return f"corrupted-{name}-{severity}"


def measure(config: CorruptionsConfig, measurement: Measurement) -> Corruptions:
    """Count the table, and compare the densities of clean and corrupted images."""
    table, header = measurement.table, measurement.context.header
    counted, asked = available(config, config.counted), available(config, config.asked)
    left_out: list[str] = [name for name in config.asked if name not in asked]
    if left_out:
        measurement.warnings.update([_without(left_out, len(counted), len(config.counted))])
    cells = {
        name: {str(level): _cell(table, name, level) for level in config.severities}
        for name in asked
    }
    files = config.source == "files"
    start = f"{header.dataset}-c" if files else "corruptions"
    return Corruptions(
        title=title_of(start, counted, config.severities),
        source="files" if files else parameters_of(measurement.context.split.shape),
        clean=rate(_right(table, CLEAN)),
        clean_lse=mean_std(table[f"{CLEAN}_lse"]),
        counted=counted,
        left_out=left_out,
        mean=_mean(table, counted, config.severities),
        mce=_mce(config, counted, cells),
        severities={str(s): _severity(table, counted, s, cells) for s in config.severities},
        cells=cells,
    )


def _without(left_out: list[str], count: int, whole: int) -> str:
    over = f"the mean is over {count} corruptions, not {whole}" if count < whole else "extra"
    return (
        f"corruptions without {', '.join(left_out)} ({over}): pip install 'cembench[corruptions]'"
    )


def _right(table: pd.DataFrame, column: str) -> pd.Series:
    return table[f"{column}_pred"] == table["label"]


def _cell(table: pd.DataFrame, name: str, severity: int) -> CorruptedImages:
    column = _column(name, severity)
    clean, lse = table[f"{CLEAN}_lse"], table[f"{column}_lse"]
    truth = [1] * len(clean) + [0] * len(lse)
    return CorruptedImages(
        **rate(_right(table, column)).dump(),
        lse=mean_std(lse),
        auroc=float(roc_auc_score(truth, pd.concat([clean, lse]))),
    )


def _mean(table: pd.DataFrame, names: list[str], severities: list[int]) -> MeanAccuracy:
    columns = [_right(table, _column(name, level)) for name in names for level in severities]
    each = pd.concat(columns, axis=1).mean(axis=1)  # of an image
    mean, half = float(each.mean()), Z * float(each.std(ddof=0)) / len(each) ** 0.5
    if half == 0:  # all images alike, most often all right: that is no certainty
        low, high = wilson(round(mean * len(each)), len(each))
        return MeanAccuracy(accuracy=mean, low=low, high=high)
    return MeanAccuracy(accuracy=mean, low=max(0.0, mean - half), high=min(1.0, mean + half))


def _severity(
    table: pd.DataFrame, names: list[str], severity: int, cells: dict[str, Any]
) -> SeverityFigures:
    right = pd.concat([_right(table, _column(name, severity)) for name in names], axis=1)
    at = [cells[name][str(severity)] for name in names]
    clean = float(widened(table[f"{CLEAN}_lse"]).mean())
    return SeverityFigures(
        mean=_mean(table, names, [severity]),
        worst_case=rate(right.all(axis=1)),
        lse_change=sum(cell.lse.mean for cell in at) / len(at) - clean,
        auroc=sum(cell.auroc for cell in at) / len(at),
    )


def _mce(config: CorruptionsConfig, names: list[str], cells: dict[str, Any]) -> float | None:
    if not config.errors:
        return None
    own = [1 - sum(c.accuracy for c in cells[n].values()) / len(cells[n]) for n in names]
    return sum(e / config.errors[n] for e, n in zip(own, names, strict=True)) / len(names)

"""Evidence of a run: kept adversarial images with the clean ones, and the network's answers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from cembench import energy
from cembench.data.split import Split, fixed_permutation, subset
from cembench.data.torchvision import CACHE, TorchvisionData
from cembench.evaluation.protocol import Protocol
from cembench.evaluation.record import Record
from cembench.evaluation.record.files import layout_of, load_table
from cembench.models.source import ModelSource
from cembench.util.errors import CembenchError
from cembench.util.files.layout import RunLayout
from cembench.util.files.names import file_name, shown
from cembench.util.files.tensors import open_tensors
from cembench.util.frozen import exact, frozen
from cembench.util.shared import shared

TOGETHER = 64  # images in a forward pass
STRONGEST = 64  # magnification of differences at most


@dataclass(frozen=True)
class Evidence:
    """Some images of a run.

    Attributes:
        clean: bytes, N×C×H×W.
        adversarial: bytes, M×C×H×W, attack by attack.
        images: of each clean image its row in the data set, label, prediction, LSE f(x, ·), and by
            attack what `_Kept.entries` returns.
        attacks: the norm of each one's threat model, by title.
        classes: their names.
        total: how many images were attacked.
        factors: what differences are multiplied by, so that they can be seen, by attack.
    """

    clean: Tensor
    adversarial: Tensor
    images: list[list[Any]]
    attacks: dict[str, str]
    classes: list[str]
    total: int
    factors: list[int]


def read_evidence(path: Path, record: Record, count: int) -> Evidence:
    """Read at most `count` images of a record, chosen by a fixed permutation of its images.

    Raises:
        CembenchError: when the checkpoint, the data or a file beside the record is missing,
            damaged or of others.
    """
    source, whole = _source(path, record), load_table(path)
    chosen = fixed_permutation(len(whole))[:count].sort().values
    split, table = _attacked(source, record).take(chosen), whole.iloc[chosen.tolist()]
    runs = Protocol.parse(record.protocol).runs
    attacks = {
        run.title: (run.threat or record.threat).norm
        for run in runs
        if f"{run.title}_broken" in table
    }
    kept = [_kept(path, title, table, split) for title in attacks]
    clean = (split.pixels() * 255).round().to(torch.uint8)
    adversarial = torch.cat([clean[:0], *(one.images for one in kept)])
    logits = _logits(source, [split.pixels(), adversarial.float() / 255])
    answers = list(zip(logits.argmax(1).tolist(), energy.marginal(logits).tolist(), strict=True))
    images: list[list[Any]] = [
        [int(row), int(label), answer[0], _short(answer[1])]
        for row, label, answer in zip(table["index"], table["label"], answers, strict=False)
    ]
    cell = len(images)
    for one in kept:
        for image, entry in zip(images, one.entries(cell, answers, len(images)), strict=True):
            image.append(entry)
        cell += len(one.images)
    classes = list(split.classes)
    factors = [_factor(one) for one in kept]
    return Evidence(clean, adversarial, images, attacks, classes, len(whole), factors)


@dataclass(frozen=True)
class _Kept:
    """Adversarial images of an attack on some images.

    Attributes:
        places: of which of them there is one.
        images: bytes, K×C×H×W.
        differences: from the clean images in float32, K×(C·H·W).
        table: the rows of the verdicts on these images.
        title: the attack.
    """

    places: Tensor
    images: Tensor
    differences: Tensor
    table: pd.DataFrame
    title: str

    def entries(self, first: int, answers: list[tuple[int, float]], count: int) -> list[Any]:
        """Return None for each image that survives, or what is known of the adversarial one.

        That is its number on the sheet, counted from `first`, the stage that succeeded, prediction,
        LSE f(x, ·), the norm of the perturbation, its linf and l2 norm, and whether it succeeds
        as bytes too.
        """
        found: list[Any] = [None] * count
        for number, place in enumerate(self.places.tolist()):
            row, change = self.table.iloc[place], self.differences[number]
            predicted, lse = answers[first + number]
            norms = row[f"{self.title}_norm"], change.abs().max(), change.norm()
            stage, whole = row[f"{self.title}_by"], bool(row[f"{self.title}_broken_8bit"])
            found[place] = [
                *(first + number, shown(str(stage)), predicted, _short(lse)),
                *(_short(float(norm)) for norm in norms),
                whole,
            ]
        return found


def _kept(path: Path, title: str, table: pd.DataFrame, split: Split) -> _Kept:
    file = RunLayout.adversarial(path) / f"{file_name(title)}.safetensors"
    wanted = torch.tensor(table["index"].tolist())
    with open_tensors(file, legacy=True) as tensors:
        rows = tensors.get_tensor("rows")
        own = torch.isin(rows, wanted).nonzero().squeeze(1)
        images, exact_images = (_some(tensors, key, own, split) for key in ("bytes", "images"))
    places = torch.searchsorted(wanted, rows[own])
    broken = torch.tensor(table[f"{title}_broken"].tolist()).nonzero().squeeze(1)
    if places.tolist() != broken.tolist():
        raise CembenchError(f"{file}: not the images that {title} succeeds on; evaluate again")
    differences = exact_images - split.pixels(places)
    return _Kept(places, images, differences.flatten(1), table, title)


def _some(tensors: Any, key: str, rows: Tensor, split: Split) -> Tensor:
    if len(rows) == 0:
        return torch.zeros(0, *split.shape, dtype=torch.uint8)
    first, last = int(rows.min()), int(rows.max())
    found = tensors.get_slice(key)[first : last + 1][rows - first]
    return found.reshape(len(rows), *split.shape)


def _source(path: Path, record: Record) -> ModelSource:
    file = layout_of(path, record).checkpoint
    source = ModelSource.at(file)
    if source.checksum != record.checkpoint_sha256:
        raise CembenchError(f"{file}: not the checkpoint of {path}; evaluate again")
    return source


def _attacked(source: ModelSource, record: Record) -> Split:
    """Return the images that a record is about, which are not downloaded for this."""
    data, limit = source.metadata.data, record.protocol.get("limit")
    here = isinstance(data, TorchvisionData) and data.root is None
    metadata = source.metadata.moved(str(CACHE)) if here else source.metadata

    def key() -> tuple[str, str, int | None]:
        return repr(metadata.data), record.split, limit

    split = shared("attacked images", key, lambda: subset(metadata.images(record.split), limit)[0])
    if split.fingerprint != record.fingerprint:
        raise CembenchError("the images of the data set are not those that were attacked")
    return split


def _logits(source: ModelSource, images: list[Tensor]) -> Tensor:
    model = source.load(torch.device("cpu"))
    with frozen(model), exact(), torch.no_grad():
        parts = (part for several in images for part in several.split(TOGETHER) if len(part))
        return torch.cat([model(part).float().cpu() for part in parts])


def _factor(kept: _Kept) -> int:
    """Return the largest power of two by which no difference leaves half the range of pixels."""
    largest = float(kept.differences.abs().max()) if len(kept.images) else 0.5
    return int(2 ** math.floor(math.log2(0.5 / min(0.5, max(0.5 / STRONGEST, largest)))))


def _short(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None

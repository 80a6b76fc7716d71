"""Counterfactuals of the attacked images: searched chunk by chunk, or read from what was saved."""

from __future__ import annotations

import math
from functools import lru_cache, partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from cembench.data.resize import eight_bit
from cembench.data.store import Store
from cembench.evaluation.cache import kept
from cembench.evaluation.chunk import Chunk, Columns
from cembench.evaluation.extractors.features import ImageFeatures, to_uint8
from cembench.evaluation.measure import Measurement
from cembench.evaluation.measures.reference import FEWEST as SMALLEST
from cembench.evaluation.metrics import functional
from cembench.evaluation.sample_set import Chunks
from cembench.evaluation.sections.counterfactuals import (
    CounterfactualFigures,
    Counterfactuals,
    CounterfactualsConfig,
)
from cembench.evaluation.statistics import rate
from cembench.samplers.counterfactual import Counterfactual
from cembench.samplers.edited import amplified, confidence, likeliest_other
from cembench.util.display.image_grid import strips
from cembench.util.errors import CembenchError
from cembench.util.files import write_bytes
from cembench.util.files.layout import RunLayout
from cembench.util.processes.distributed import World
from cembench.util.rng import derive, generator_of, integers
from cembench.util.stages import stage

FEWEST = 5  # images of a class that a KID is computed of
SHOWN = 40  # images in a picture
TARGET = "counterfactual_target"
BEFORE = "counterfactual_confidence"


def chunk_columns(config: CounterfactualsConfig, chunk: Chunk) -> Columns:
    """Return each image's new class, the confidence in it before, and three columns for each ball.

    For a ball X these are `X_reached`, `X_norm` (the size of the change) and `X_confidence`. There
    are none for a network without a gradient.
    """
    if chunk.target.no_gradient:
        return {}
    x = chunk.split.pixels()
    with torch.no_grad():
        logits = chunk.target.verifier(x)
    target = _targets(config, chunk, logits)
    columns: Columns = {TARGET: target, BEFORE: confidence(logits, target)}
    found, left = x, torch.ones(len(x), dtype=torch.bool, device=x.device)
    for title, search in config.searches().items():
        chunk.bar.advance(0, title)
        find = partial(_search, search, chunk, x, target, found, left)
        number = chunk.start // chunk.protocol.batch_size
        found = chunk.attacks.images(title, number, chunk.cache, find).to(x.device)
        if found.shape != x.shape:
            raise CembenchError(f"{title}: saved images of another shape; evaluate again")
        with torch.no_grad():
            out = chunk.target.verifier(found)
        reached = search.reached(out, x, found, target)
        columns[f"{title}_reached"] = reached
        columns[f"{title}_norm"] = search.ball.size((found - x).double()).float()
        columns[f"{title}_confidence"] = confidence(out, target)
        left = ~reached
    return columns


def _search(
    search: Counterfactual, chunk: Chunk, x: Tensor, target: Tensor, found: Tensor, left: Tensor
) -> Tensor:
    """Return counterfactuals: those found before, and a search from the images that are left."""
    result = found.clone()
    if bool(left.any()):
        with stage("counterfactuals"):
            faced = chunk.target
            result[left] = search.search(faced.model, x[left], target[left], faced.verifier)
    return result


def _targets(config: CounterfactualsConfig, chunk: Chunk, logits: Tensor) -> Tensor:
    if config.target == "likely":
        return likeliest_other(logits)
    labels = chunk.split.labels
    generator = generator_of(derive(chunk.protocol.seed, "targets", chunk.start), labels.device)
    classes = chunk.target.classes
    return (labels + 1 + integers(classes - 1, labels.shape, generator)) % classes


def share(config: CounterfactualsConfig, measurement: Measurement, ranks: World) -> None:
    """Compare this process's share of the sets of counterfactuals with real images."""
    if TARGET in measurement.table:
        for title in ranks.deal("counterfactuals", ["", *config.searches()]):
            _compared(measurement, title)


def measure(config: CounterfactualsConfig, measurement: Measurement) -> Counterfactuals | None:
    """Count the table, and compare counterfactuals with real images where there is a reference."""
    table = measurement.table
    if TARGET not in table:
        measurement.not_applicable.append("counterfactuals")
        return None
    already = (table["clean_pred"] == table[TARGET]) & (table[BEFORE] >= config.confidence)
    first = CounterfactualFigures(
        eps=0.0,
        norm=config.norm,
        reached=rate(already),
        distance=None,
        confidence=float(table[BEFORE].mean()),
        **_compared(measurement),
    )
    balls = {}
    for title, search in config.searches().items():
        balls[title] = CounterfactualFigures(
            **_counted(search, title, table), **_compared(measurement, title)
        )
        if measurement.samples.pictures:
            with stage("figures"):
                _write_picture(measurement, title, _kept(measurement, title))
    return Counterfactuals(confidence=config.confidence, originals=first, balls=balls)


def _counted(search: Counterfactual, title: str, table: pd.DataFrame) -> dict[str, Any]:
    reached, sizes = table[f"{title}_reached"], table[f"{title}_norm"]
    return {
        "eps": search.eps,
        "norm": search.norm,
        "reached": rate(reached),
        "distance": float(sizes[reached].median()) if reached.any() else None,
        "confidence": float(table[f"{title}_confidence"].mean()),
    }


def _kept(measurement: Measurement, title: str) -> Store:
    """Return the counterfactuals in a ball as bytes, of which a chunk at a time is in memory."""
    context = measurement.context

    def gone() -> Tensor:
        raise CembenchError(f"{context.path}: counterfactuals are gone; evaluate again")

    def read(number: int) -> Tensor:
        return to_uint8(measurement.attacks.images(title, number, context.cache, gone)).cpu()

    size, count = context.protocol.batch_size, len(context.split)
    sizes = [min(size, count - start) for start in range(0, count, size)]
    return Chunks(lru_cache(maxsize=1)(read), sizes, torch.Size(context.split.shape))


def _compared(measurement: Measurement, title: str = "") -> dict[str, Any]:
    """Return what a reference says of counterfactuals, or of their originals, with new classes.

    There is nothing without a reference. What there is is kept in the cache, if there is one.
    """
    context = measurement.context
    target = torch.from_numpy(measurement.table[TARGET].to_numpy(copy=True))

    def make() -> dict[str, Any]:
        if context.reference is None or len(target) < SMALLEST:
            return {}
        images = _kept(measurement, title) if title else eight_bit(context.split)
        seen = context.reference.features_of(images, target)
        scores = context.reference.scores(seen, None)[0].dump()
        return {"scores": scores, **_class_kid(seen, context.reference.real)}

    return dict(kept(context.cache, f"compared.{title}", make))


def _class_kid(fake: ImageFeatures, real: ImageFeatures) -> dict[str, float]:
    """Return the mean over images of the KID to the real images of their class, and its error."""
    parts = []
    for label in fake.labels.unique().tolist():
        own, theirs = (part.features.pool[part.labels == label] for part in (fake, real))
        if min(len(own), len(theirs)) >= FEWEST:
            found = functional.kid(own[: functional.MOST], theirs[: functional.MOST])
            parts.append((len(own), found.value, found.error))
    if not parts:
        return {}
    whole = sum(count for count, _, _ in parts)
    value = sum(count * kid for count, kid, _ in parts) / whole
    error = math.sqrt(sum((count * error) ** 2 for count, _, error in parts)) / whole
    return {"class_kid": value, "class_kid_error": error}


def _write_picture(measurement: Measurement, title: str, images: Store) -> None:
    """Write the first originals and counterfactuals, and their differences."""
    context, shown = measurement.context, torch.arange(min(SHOWN, len(images)))
    table, classes = measurement.table[: len(shown)], context.metadata.classes
    originals, changed = context.split.pixels(shown).cpu(), images.batch(shown).float() / 255
    rows = {"original": originals, "counterfactual": changed}
    rows["difference, amplified"] = amplified(changed - originals)
    found = zip(table[TARGET], table[f"{title}_confidence"], strict=True)
    captions = {
        "original": [classes[label] for label in table["label"]],
        "counterfactual": [f"{classes[label]}\n{level:.2f}" for label, level in found],
    }
    write_bytes(RunLayout.picture(context.path, title), strips(rows, captions))

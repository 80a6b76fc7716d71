"""Pretrained features: checks, loading and freezing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from cembench.data.loading import load_training
from cembench.models.bounds import HEAD
from cembench.models.checkpoint import load_checkpoint, weights_digest
from cembench.models.classifier import Classifier
from cembench.models.metadata import CheckpointMetadata
from cembench.models.recipe import recipe_of
from cembench.training.config import Experiment
from cembench.training.sections import Pretrained
from cembench.util.errors import CembenchError
from cembench.util.files.fetched import place_of
from cembench.util.files.layout import RunLayout


def resolved(config: Experiment) -> Experiment:
    """Return the experiment with the digests of all weights that it starts from or asks.

    Raises:
        CembenchError: when they cannot be read, are of an unfinished run, or do not fit.
    """
    config = config.model_copy(update={"data": config.data.resolved()})
    if config.pretrained is None:
        return config
    file = RunLayout.at(place_of(config.pretrained.checkpoint)).checkpoint
    model, metadata = load_checkpoint(file)
    _require_fit(file, metadata, config)
    found = {
        "weights": weights_digest(model.state_dict()),
        "method": metadata.method,
        "gradients": metadata.gradients,
        "labels": metadata.labels,
        "recipe": recipe_of(metadata.config),
    }
    return config.model_copy(update={"pretrained": config.pretrained.model_copy(update=found)})


def _require_fit(file: Path, metadata: CheckpointMetadata, config: Experiment) -> None:
    where = f"pretrained.checkpoint {file}"
    if not metadata.finished:
        raise CembenchError(f"{where}: its training is not finished; --resume it first")
    if metadata.model != config.model:
        raise CembenchError(f"{where}: a {metadata.model.dump()}, not a {config.model.dump()}")
    data = load_training(config.data, config.validation.fraction)
    shape = data.training.shape
    if list(shape) != metadata.shape:
        raise CembenchError(f"{where}: made for images of {metadata.shape}, not {shape}")
    if config.pretrained is not None and config.pretrained.head == "kept":
        _require_same_head(where, metadata, data.training.classes, config)
    theirs = metadata.config.get("validation", {}).get("fraction")
    if data.fingerprint == metadata.fingerprint and theirs != config.validation.fraction:
        raise CembenchError(
            f"{where}: held out {theirs} of the training images; hold out the same with "
            f"validation.fraction={theirs}, or it was trained on images that this run validates on"
        )


def _require_same_head(
    where: str, metadata: CheckpointMetadata, classes: Sequence[str], config: Experiment
) -> None:
    if metadata.head != config.method.head:
        raise CembenchError(f"{where}: its head is another one; leave out pretrained.head")
    if metadata.classes != list(classes):
        raise CembenchError(
            f"{where}: its classes are {metadata.classes}, not {list(classes)}; leave out "
            "pretrained.head for a new last layer"
        )


def start_from(model: Classifier, start: Pretrained) -> None:
    """Load the features, or all weights, and the pixel statistics of a pretrained network.

    Raises:
        ModelError: when a new head is wanted, and its architecture has no features.
        CembenchError: when they are not those that the run began with, or are not finite.
    """
    source, metadata = load_checkpoint(place_of(start.checkpoint))
    whole = start.head == "kept"
    if not whole:
        source.features(torch.zeros(1, *metadata.shape))
    weights = source.state_dict()
    if weights_digest(weights) != start.weights:
        raise CembenchError(f"{start.checkpoint}: not the weights that this run started from")
    model.load_state_dict(
        {k: v for k, v in weights.items() if whole or not k.startswith(HEAD)}, strict=whole
    )
    if not all(bool(v.isfinite().all()) for v in weights.values() if v.is_floating_point()):
        raise CembenchError(f"{start.checkpoint}: its weights are not finite")


def freeze_features(model: Classifier) -> None:
    """Freeze all weights but those of the head."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(HEAD))

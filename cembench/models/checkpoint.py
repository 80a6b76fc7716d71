"""Checkpoint: a self-describing safetensors file with weights and metadata."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from cembench.models.bounds import Misfit, fill, limit, registering_at_most, require_fit
from cembench.models.classifier import Classifier, build_classifier
from cembench.models.metadata import (
    FORMAT,
    CheckpointMetadata,
    read_sealed_checkpoint,
)
from cembench.util.errors import CembenchError, ModelError
from cembench.util.files.layout import RunLayout
from cembench.util.files.seal import UNSEALED
from cembench.util.files.tensors import write_tensors


def save_checkpoint(
    path: Path, weights: dict[str, torch.Tensor], metadata: CheckpointMetadata
) -> None:
    """Write a checkpoint, completely or not at all.

    Raises:
        CembenchError: when it cannot be written.
    """
    write_tensors(path, weights, {"format": FORMAT, "seal": UNSEALED, **metadata.dump()})


def weights_digest(weights: dict[str, torch.Tensor]) -> str:
    """Return the SHA-256 of names, types, shapes and values of weights.

    Unlike the SHA-256 of a checkpoint file it does not change when settings gain a key.
    """
    sha = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        values = tensor.detach().cpu().contiguous()
        sha.update(f"{name} {values.dtype} {tuple(values.shape)}\0".encode())
        sha.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def build_network(metadata: CheckpointMetadata) -> Classifier:
    """Return the network of the metadata, with random weights."""
    channels, height, width = metadata.shape
    mean, std = torch.tensor(metadata.mean), torch.tensor(metadata.std)
    shape = (channels, height, width)
    return build_classifier(metadata.model, shape, len(metadata.classes), mean, std, metadata.head)


def load_checkpoint(
    path: Path, device: torch.device | str = "cpu"
) -> tuple[Classifier, CheckpointMetadata]:
    """Rebuild a network from its checkpoint or run folder, in evaluation mode.

    Raises:
        CembenchError: as `read_metadata`, and for weights that do not fit the architecture.
    """
    path = RunLayout.at(path).checkpoint
    content, metadata = read_sealed_checkpoint(path)
    try:
        return network_of(content, metadata, path).to(device), metadata
    except CembenchError as error:
        if str(path) in str(error):
            raise
        kind = ModelError if isinstance(error, ModelError) else CembenchError
        raise kind(f"{path}: {error}") from error


def network_of(content: bytes, metadata: CheckpointMetadata, path: Path) -> Classifier:
    """Return the network in the content of a checkpoint, in evaluation mode.

    Nothing of the size of the architecture is allocated before its shapes are known to be those of
    the weights.

    Raises:
        CembenchError: naming `path`, for weights that do not fit the architecture.
        ModelError: when the network cannot be built.
    """
    try:
        weights = load(content)
    except SafetensorError as error:
        raise CembenchError(f"{path}: damaged: {error}") from error
    try:
        require_fit(metadata, weights)
        with registering_at_most(weights, limit(weights)):
            model = build_network(metadata)
        fill(model, weights)
    except Misfit as error:
        raise CembenchError(f"{path}: does not fit its architecture: {error}") from error
    model.metadata = metadata
    return model.eval()

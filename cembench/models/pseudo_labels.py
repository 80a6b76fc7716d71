"""Pseudo-labels: the classes that a trained network gives to images without labels."""

from __future__ import annotations

import hashlib
import math
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Self

from cembench.data.labels import LabelSource
from cembench.util.errors import CembenchError
from cembench.util.files import digest, read_bytes
from cembench.util.files.layout import user_cache
from cembench.util.files.locks import locked
from cembench.util.files.tensors import read_tensors, tensor_metadata, write_tensors
from cembench.util.lazy import lazy_imports
from cembench.util.progress import Bar

with lazy_imports():
    import torch
    from torch import Tensor

    from cembench.data.split import Split
    from cembench.models.checkpoint import load_checkpoint, weights_digest
    from cembench.models.classifier import Classifier
    from cembench.util.devices import device_of, pick_device

BATCH = 256


class CheckpointLabels(LabelSource):
    """The class with the largest logit of a trained network, in float32 (Carmon et al., arXiv
    1905.13736). Class names are those of the network. Labels are kept in the user's cache.

    Attributes:
        checkpoint: checkpoint or folder of its run.
        weights: digest of its weights, which is filled in when training begins.
    """

    name: ClassVar[str] = "checkpoint"
    checkpoint: str
    weights: str = ""

    @property
    def title(self) -> str:
        """The path of the checkpoint."""
        return self.checkpoint

    @property
    def path(self) -> Path:
        """The checkpoint, or the folder of its run."""
        return Path(self.checkpoint).expanduser().resolve()

    def resolved(self) -> Self:
        """Return the same source with the digest of the weights."""
        if self.weights:
            return self
        weights = weights_digest(self._network().state_dict())
        return self.model_copy(update={"weights": weights})

    def label(self, split: Split) -> Split:
        """Return the images with the labels of the network, from the cache if it has them."""
        source = self.resolved()
        labels, classes = source._cached(split)
        sha = hashlib.sha256(repr((split.fingerprint, classes)).encode())
        sha.update(labels.numpy().tobytes())
        where = split.labels.device
        return replace(split, labels=labels.to(where), classes=classes, known=sha.hexdigest())

    def _cached(self, split: Split) -> tuple[Tensor, tuple[str, ...]]:
        key = digest([self.weights, split.fingerprint])
        file = user_cache() / "pseudo-labels" / f"{key}.safetensors"
        with suppress(CembenchError):
            return _read(file, key)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError:  # without a cache it only takes longer
            return self._computed(split)
        with locked(file.with_suffix(".lock"), str(file), math.inf):
            with suppress(CembenchError):  # another process may have written it meanwhile
                return _read(file, key)
            labels, classes = self._computed(split)
            with suppress(CembenchError):
                write_tensors(file, {"labels": labels}, {"classes": classes}, key)
        return labels, classes

    def _computed(self, split: Split) -> tuple[Tensor, tuple[str, ...]]:
        model = self._network()
        metadata = model.metadata
        assert metadata is not None
        if list(split.shape) != metadata.shape:
            raise CembenchError(
                f"pseudo_labels: {self.checkpoint} is made for images of {metadata.shape}, not "
                f"{list(split.shape)}"
            )
        if self.weights != weights_digest(model.state_dict()):
            raise CembenchError(f"pseudo_labels: {self.checkpoint} has other weights than before")
        model = model.to(pick_device("auto"))
        labels = torch.empty(len(split), dtype=torch.int64)
        with torch.no_grad(), Bar(f"pseudo-labels of {self.checkpoint}", len(split)) as bar:
            parts = split.parts(BATCH)
            for rows, images in zip(parts, split.batches(BATCH), strict=True):
                labels[rows] = _largest(model, images, split.levels)
                bar.advance(len(rows))
        return labels, tuple(metadata.classes)

    def _network(self) -> Classifier:
        """Return the network.

        Raises:
            CembenchError: when it cannot be read, is no classifier, or its training goes on.
        """
        model, metadata = load_checkpoint(Path(self.checkpoint).expanduser())
        if metadata.kind != "classifier":
            raise CembenchError(f"pseudo_labels: {self.checkpoint} is an encoder, without classes")
        if not metadata.finished:
            raise CembenchError(f"pseudo_labels: {self.checkpoint} is not finished; --resume it")
        return model


def _largest(model: Classifier, images: Tensor, levels: int) -> Tensor:
    """Return the class with the largest logit of each image, on the CPU."""
    x = images.to(device_of(model)).float() / levels
    labels: Tensor = model(x).argmax(1).cpu()
    return labels


def _read(file: Path, key: str) -> tuple[Tensor, tuple[str, ...]]:
    labels = read_tensors(file, key)["labels"]
    metadata = tensor_metadata(read_bytes(file))
    assert metadata is not None
    return labels, tuple(metadata["classes"])

"""Metadata of a checkpoint: everything but its weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, SerializeAsAny

from cembench.data import HELD_OUT, DataSettings, datasets
from cembench.energy.threat import Threat
from cembench.models import ModelSettings, models
from cembench.models.heads import Head, heads
from cembench.util.errors import CembenchError, ConfigError
from cembench.util.files import read_bytes
from cembench.util.files.seal import is_sealed
from cembench.util.files.tensors import tensor_metadata
from cembench.util.settings import Count, LabelUse, Settings, optional_field
from cembench.util.version import __version__

if TYPE_CHECKING:
    from cembench.data.split import Split

FORMAT = 2
SEALED = 2  # the first format with a seal


class CheckpointMetadata(Settings):
    """Metadata of a checkpoint.

    Attributes:
        kind: whether the network gives logits (`classifier`) or embeddings (`encoder`).
        model: architecture.
        head: head on its features, if not the network's own last layer.
        shape: channels, height and width of its images.
        classes: class names in logit order.
        mean: pixel means that the model subtracts, one per channel.
        std: pixel standard deviations that it divides by, one per channel.
        data: data set that it was trained on.
        threat: threat model of its training.
        method: title of the training method.
        seed: seed of the run.
        epoch: epoch of these weights.
        finished: whether the run is finished; before that these are the best weights so far.
        gradients: gradient evaluations of training, images times steps, rolled-back
            epochs included.
        fingerprint: SHA-256 of the training split.
        divergences: times that training diverged and was rolled back.
        labels: labels that training used: all, none, or those that a probe was fitted with.
        config: resolved experiment; empty for weights trained elsewhere.
        origin: source of weights trained elsewhere.
        version: version of cembench that wrote the checkpoint.
    """

    kind: Literal["classifier", "encoder"] = "classifier"
    model: Annotated[SerializeAsAny[ModelSettings], models.field()]
    head: Annotated[SerializeAsAny[Head], heads.field()] | None = None
    shape: list[Count] = Field(min_length=3, max_length=3)
    classes: list[str] = Field(min_length=2)
    mean: list[float]
    std: list[float]
    data: Annotated[SerializeAsAny[DataSettings], datasets.field()]
    threat: Threat
    method: str
    seed: int = 0
    epoch: int = 0
    finished: bool = False
    gradients: int = 0
    fingerprint: str = ""
    divergences: int = 0
    labels: LabelUse = "all"
    config: dict[str, Any] = {}
    origin: str = optional_field("")
    version: str = __version__

    @property
    def held_out(self) -> float:
        """Fraction of the training images that training held out for validation."""
        fraction: float = self.config.get("validation", {}).get("fraction", HELD_OUT)
        return fraction

    def moved(self, root: str | None) -> CheckpointMetadata:
        """Return the same metadata with another root of the data; unchanged for None."""
        return self.model_copy(update={"data": self.data.moved(root)})

    def training_split(self) -> tuple[Split, Split]:
        """Return the images that training used, and those that it held out for validation.

        Raises:
            CembenchError: when the data cannot be read, or is not what the network was trained on.
        """
        from cembench.data.loading import load_training

        loaded = load_training(self.data, self.held_out)
        self.check(loaded.training)
        if self.fingerprint and loaded.fingerprint != self.fingerprint:
            raise CembenchError("the training images are not those that the network was trained on")
        return loaded.training, loaded.held

    def images(self, split: str) -> Split:
        """Return the images of `test`, or of `validation`, held out of the training images."""
        from cembench.data.loading import load_test

        return load_test(self.data) if split == "test" else self.training_split()[1]

    def check(self, split: Split) -> None:
        """Refuse data of another shape or with other classes.

        Raises:
            CembenchError: naming what differs.
        """
        if list(split.shape) != self.shape:
            raise CembenchError(f"images are {split.shape}, the model wants {self.shape}")
        if list(split.classes) != self.classes:
            raise CembenchError(f"classes are {split.classes}, the model knows {self.classes}")


def read_metadata(path: Path) -> CheckpointMetadata:
    """Read the metadata of a checkpoint.

    Raises:
        CembenchError: for a missing, damaged, foreign or pickled file, or another format version.
    """
    return read_sealed_checkpoint(path)[1]


def read_sealed_checkpoint(path: Path) -> tuple[bytes, CheckpointMetadata]:
    """Return the content of a checkpoint, after checking its seal, and its metadata."""
    content = read_bytes(path)
    if content[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        raise CembenchError(f"{path}: a pickle, which could run code; only safetensors are read")
    damaged = f"{path}: truncated or damaged; copy it again, or delete it and --resume its run"
    try:
        values = tensor_metadata(content)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise CembenchError(damaged) from error
    if values is None:
        raise CembenchError(f"{path}: safetensors, but not written by cembench")
    version = values.pop("format", None)
    if not isinstance(version, int) or version > FORMAT:
        raise CembenchError(f"{path}: format version {version}; this cembench reads up to {FORMAT}")
    if version >= SEALED and not is_sealed(content):
        raise CembenchError(damaged)
    try:
        return content, CheckpointMetadata.parse(values)
    except ConfigError as error:
        hint = "is a plugin missing? Give it with --plugin"
        raise CembenchError(f"{path}: cannot be understood: {error} ({hint})") from error

"""Metadata of a checkpoint: everything but its weights."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, PrivateAttr, SerializeAsAny, model_validator

from cembench.data import HELD_OUT, DataSettings, datasets
from cembench.data.roots import remember_root, require_named
from cembench.energy.norms import LARGEST_IMAGE
from cembench.energy.threat import Threat
from cembench.models import ModelSettings, models
from cembench.models.heads import Head, heads
from cembench.util.errors import CembenchError, ConfigError
from cembench.util.files import read_bytes
from cembench.util.files.seal import is_sealed
from cembench.util.files.tensors import tensor_metadata
from cembench.util.settings import Count, Fraction, LabelUse, Settings, optional_field
from cembench.util.version import __version__

if TYPE_CHECKING:
    from cembench.data.split import Split

FORMAT = 2
SEALED = 2  # the first format with a seal
DEEPEST = 32  # nesting of settings

Whole = Annotated[int, Field(ge=0, lt=2**63)]
Line = Annotated[str, Field(max_length=1000, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]  # is printed


class _Validation(Settings):
    model_config = ConfigDict(extra="allow")
    fraction: Fraction = HELD_OUT


class _Training(Settings):
    """The settings of a training that are used without the rest of them."""

    model_config = ConfigDict(extra="allow")
    epochs: Count | None = None
    epoch_images: Count | None = None
    batch_size: Count | None = None
    validation: _Validation = _Validation()
    pretrained: dict[str, Any] | None = None


def _known_keys(config: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a training as they are, after checking those that are used."""
    _Training.parse(config)
    return config


def _distinct(names: list[str]) -> list[str]:
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise ValueError(f"'{name:.40}' is there {times} times")
    return names


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
    classes: Annotated[
        list[str], Field(min_length=2, max_length=100_000), AfterValidator(_distinct)
    ]
    mean: list[float]
    std: list[Annotated[float, Field(gt=0)]]
    data: Annotated[SerializeAsAny[DataSettings], datasets.field()]
    threat: Threat
    method: Line
    seed: Whole = 0
    epoch: Whole = 0
    finished: bool = False
    gradients: Whole = 0
    fingerprint: Line = ""
    divergences: Whole = 0
    labels: LabelUse = "all"
    config: Annotated[dict[str, Any], AfterValidator(_known_keys)] = {}
    origin: Line = optional_field("")
    version: Line = __version__

    _stated: tuple[Path, DataSettings] | None = PrivateAttr(None)  # what a file says of its data

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        channels, size = self.shape[0], math.prod(self.shape)
        if size > LARGEST_IMAGE:
            raise ConfigError.single(f"{size:,} values, of {LARGEST_IMAGE:,} at most", "shape")
        for key, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != channels:
                raise ConfigError.single(f"{len(values)} values for {channels} channels", key)
        encodes = self.head is not None and self.head.encodes
        if encodes != (self.kind == "encoder"):
            raise ConfigError.single(f"no {self.kind}, since its head says otherwise", "kind")
        return self

    @property
    def held_out(self) -> float:
        """Fraction of the training images that training held out for validation."""
        return _Training.parse(self.config).validation.fraction

    def epoch_images(self, images: int) -> int:
        """Return how many images the steps of an epoch read; 0 where that is not known.

        Args:
            images: number of training images, without those held out.
        """
        training = _Training.parse(self.config)
        if training.epoch_images is None and len(self.data.members) > 1:
            return 0
        images = training.epoch_images or images
        batch = min(training.batch_size or 0, images)
        return images - images % batch if batch else 0

    def moved(self, root: str | None) -> CheckpointMetadata:
        """Return the same metadata with another root of the data; unchanged for None."""
        if root is None:
            return self
        data = self.data.moved(root)
        remember_root(data.members[0])
        moved = self.model_copy(update={"data": data})
        if self._stated is not None:
            moved._stated = self._stated[0], data
        return moved

    def require_named_root(self, whole: bool = False) -> None:
        """Refuse data whose folder nobody but the checkpoint named; see `data.roots`.

        Args:
            whole: whether all parts of a mix will be read, or only the first one.

        Raises:
            CembenchError: naming the folder, and how to name it.
        """
        if self._stated is not None and self._stated[1] is self.data:
            data = self.data if whole else self.data.members[0]
            require_named(data, self._stated[0])

    def training_split(self) -> tuple[Split, Split]:
        """Return the images that training used, and those that it held out for validation.

        Raises:
            CembenchError: when the data cannot be read, or is not what the network was trained on.
        """
        from cembench.data.loading import load_training

        self.require_named_root(whole=True)
        loaded = load_training(self.data, self.held_out)
        self.check(loaded.training)
        if self.fingerprint and loaded.fingerprint != self.fingerprint:
            raise CembenchError("the training images are not those that the network was trained on")
        return loaded.training, loaded.held

    def images(self, split: str) -> Split:
        """Return the images of `test`, or of `validation`, held out of the training images."""
        from cembench.data.loading import load_test

        self.require_named_root()
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
    if _version(path, values.pop("format", None)) >= SEALED and not is_sealed(content):
        raise CembenchError(damaged)
    try:
        _require_plain(values)
        metadata = CheckpointMetadata.parse(values)
    except ValueError as error:
        hint = " (is a plugin missing? Give it with --plugin)" * ("unknown" in str(error))
        raise CembenchError(f"{path}: cannot be understood: {error}{hint}") from error
    metadata._stated = path, metadata.data
    return content, metadata


def _version(path: Path, version: object) -> int:
    """Return the version of the format of a checkpoint."""
    if not isinstance(version, int) or isinstance(version, bool):
        text = json.dumps(version)
        raise CembenchError(f"{path}: format version {text:.40} is not a whole number")
    if not 1 <= version <= FORMAT:
        raise CembenchError(
            f"{path}: format version {version}; this cembench reads versions 1 to {FORMAT}"
        )
    return version


def _require_plain(values: Any, place: str = "", depth: int = 0) -> None:
    """Refuse texts that cannot be written, and nesting that no settings have.

    Raises:
        ConfigError: naming the key.
    """
    if depth > DEEPEST:
        raise ConfigError.single(f"nested more than {DEEPEST} levels deep", place)
    if isinstance(values, str):
        try:
            values.encode(errors="surrogateescape")  # paths may have bytes that are not UTF-8
        except UnicodeEncodeError:
            raise ConfigError.single(f"no text: {values!a:.40}", place) from None
    elif isinstance(values, dict | list):
        for key, inner in values.items() if isinstance(values, dict) else enumerate(values):
            where = ".".join(filter(None, [place, ascii(key).strip("'")[:40]]))
            _require_plain(key, where, depth + 1)
            _require_plain(inner, where, depth + 1)

"""The metadata of a checkpoint: everything but its weights."""

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
from cembench.util.layout import RunLayout
from cembench.util.seal import is_sealed
from cembench.util.settings import Count, LabelUse, Settings, optional_field
from cembench.util.tensors import tensor_metadata
from cembench.util.version import __version__

if TYPE_CHECKING:
    from cembench.data.split import Split

FORMAT = 2
SEALED = 2  # the first format with a seal


class CheckpointMetadata(Settings):
    """What a checkpoint says of itself.

    Attributes:
        kind: what it gives: logits, or embeddings.
        head: what sits on its features, if not the network's own last layer.
        shape: channels, height, width of its images.
        classes: class names in logit order.
        mean: pixel means that the model subtracts, a channel each.
        std: pixel standard deviations that it divides by.
        epoch: the epoch whose weights these are.
        finished: whether the run came to its end; before that these are the best so far.
        gradients: gradient evaluations of training, images times steps, rolled-back
            epochs included.
        fingerprint: SHA-256 of the training split.
        divergences: times that training diverged and was rolled back.
        labels: what training knew of the labels: all, none, or those a probe was fitted with.
        config: the resolved experiment; empty for weights trained elsewhere.
        origin: where weights trained elsewhere came from.
        version: the cembench that wrote it.
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

    def moved(self, root: str | None) -> CheckpointMetadata:
        """Return the same with data that lies under another root, if there is one."""
        return self.model_copy(update={"data": self.data.moved(root)})

    def training_split(self) -> tuple[Split, Split]:
        """Return the images that training used, and those that it held out for validation.

        Raises:
            CembenchError: when the data cannot be read, or is not what training saw.
        """
        from cembench.data.split import hold_out

        whole = self.data.load("train")
        self.check(whole)
        if self.fingerprint and whole.fingerprint != self.fingerprint:
            raise CembenchError("the training images are not those that the network was trained on")
        held = self.config.get("validation", {}).get("fraction", HELD_OUT)
        return hold_out(whole, held)

    def images(self, split: str) -> Split:
        """Return the images that figures are about: `test`, or those held out as `validation`."""
        return self.data.load("test") if split == "test" else self.training_split()[1]

    def check(self, split: Split) -> None:
        """Refuse data that the network was not made for.

        Raises:
            CembenchError: naming what differs.
        """
        if list(split.shape) != self.shape:
            raise CembenchError(f"images are {split.shape}, the model wants {self.shape}")
        if list(split.classes) != self.classes:
            raise CembenchError(f"classes are {split.classes}, the model knows {self.classes}")


def checkpoint_file(path: Path) -> Path:
    """Return the checkpoint that a path means: the file itself, or that of a run folder."""
    return RunLayout.at(path).checkpoint


def own_name(file: Path) -> str:
    """Return the name that a checkpoint has of its own; empty for the one of a run folder."""
    return RunLayout(file.parent, file.name).own_name


def beside(file: Path, name: str) -> str:
    """Return what a file that belongs to a checkpoint is called, so that no two checkpoints mix."""
    own = own_name(file)
    return f"{own}.{name}" if own else name


def run_name(file: Path) -> str:
    """Return the name of a run: that of the folder, or of a file with a name of its own."""
    return RunLayout(file.parent, file.name).name


def read_metadata(path: Path) -> CheckpointMetadata:
    """Read what a checkpoint says of itself.

    Raises:
        CembenchError: for a missing, damaged, foreign or pickled file, or another format version.
    """
    return read_sealed_checkpoint(path)[1]


def read_sealed_checkpoint(path: Path) -> tuple[bytes, CheckpointMetadata]:
    """Return the whole content of a checkpoint, once its seal is checked, and its metadata."""
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

"""One self-describing safetensors file: the weights, and all that is needed to use them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, SerializeAsAny
from safetensors import SafetensorError
from safetensors.torch import load, save

from cembench.data import DataSettings, datasets
from cembench.data.split import Split, hold_out
from cembench.energy.threat import Threat
from cembench.models import ModelSettings, models
from cembench.models.classifier import Classifier, build_classifier
from cembench.models.heads import Head, heads
from cembench.training.config import Validation
from cembench.util.errors import CembenchError, ConfigError
from cembench.util.files import read_bytes, write_bytes
from cembench.util.seal import UNSEALED, is_sealed, seal
from cembench.util.settings import Count, LabelUse, Settings, unless
from cembench.util.version import __version__

FORMAT = 2


class Passport(Settings):
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
    origin: str = unless("")
    version: str = __version__

    def build(self) -> Classifier:
        """Return the network with fresh weights."""
        channels, height, width = self.shape
        mean, std = torch.tensor(self.mean), torch.tensor(self.std)
        shape = (channels, height, width)
        return build_classifier(self.model, shape, len(self.classes), mean, std, self.head)

    def moved(self, root: str | None) -> Passport:
        """Return the same with data that lies under another root, if there is one."""
        return self.model_copy(update={"data": self.data.moved(root)})

    def training_split(self) -> tuple[Split, Split]:
        """Return the images that training used, and those that it held out for validation.

        Raises:
            CembenchError: when the data cannot be read, or is not what training saw.
        """
        whole = self.data.load("train")
        self.check(whole)
        if self.fingerprint and whole.fingerprint != self.fingerprint:
            raise CembenchError("the training images are not those that the network was trained on")
        held = self.config.get("validation", {}).get("fraction", Validation().fraction)
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


def save_checkpoint(path: Path, weights: dict[str, torch.Tensor], passport: Passport) -> None:
    """Write a checkpoint whole or not at all.

    Raises:
        CembenchError: when it cannot be written.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    # One entry alone: safetensors writes several in random order, and files would differ.
    values = {"format": FORMAT, "seal": UNSEALED, **passport.dump()}
    write_bytes(path, seal(save(tensors, {"cembench": json.dumps(values)})))


def weights_digest(weights: dict[str, torch.Tensor]) -> str:
    """Return a SHA-256 over names, types, shapes and values of weights.

    Unlike that of a checkpoint's file it does not change when settings gain a key.
    """
    sha = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        values = tensor.detach().cpu().contiguous()
        sha.update(f"{name} {values.dtype} {tuple(values.shape)}\0".encode())
        sha.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def checkpoint_file(path: Path) -> Path:
    """Return the checkpoint that a path means: the file itself, or that of a run folder."""
    return path / "model.safetensors" if path.is_dir() else path


def own_name(file: Path) -> str:
    """Return the name that a checkpoint has of its own; empty for the one of a run folder."""
    return "" if file.name == "model.safetensors" else file.stem


def beside(file: Path, name: str) -> str:
    """Return what a file that belongs to a checkpoint is called, so that no two checkpoints mix."""
    own = own_name(file)
    return f"{own}.{name}" if own else name


def run_name(file: Path) -> str:
    """Return the name of a run: that of the folder, or of a file with a name of its own."""
    return own_name(file) or file.resolve().parent.name


def read_passport(path: Path) -> Passport:
    """Read what a checkpoint says of itself.

    Raises:
        CembenchError: for a missing, damaged, foreign or pickled file, or another format version.
    """
    return _read(path)[1]


def _read(path: Path) -> tuple[bytes, Passport]:
    """Return the whole content of a checkpoint, once its seal is checked, and its passport."""
    content = read_bytes(path)
    if content[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        raise CembenchError(f"{path}: a pickle, which could run code; only safetensors are read")
    damaged = f"{path}: truncated or damaged; copy it again, or delete it and --resume its run"
    try:
        values = _metadata(content)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise CembenchError(damaged) from error
    if values is None:
        raise CembenchError(f"{path}: safetensors, but not written by cembench")
    if (version := values.pop("format", None)) != FORMAT:
        raise CembenchError(f"{path}: format version {version}, this cembench reads {FORMAT}")
    if not is_sealed(content):
        raise CembenchError(damaged)
    try:
        return content, Passport.parse({k: v for k, v in values.items() if k != "seal"})
    except ConfigError as error:
        hint = "is a plugin missing? Give it with --plugin"
        raise CembenchError(f"{path}: cannot be understood: {error} ({hint})") from error


def _metadata(content: bytes) -> dict[str, Any] | None:
    """Return what the header of a safetensors file holds for cembench, if anything."""
    length = int.from_bytes(content[:8], "little")
    text = json.loads(content[8 : 8 + length]).get("__metadata__", {}).get("cembench")
    return None if text is None else dict(json.loads(text))


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> tuple[Classifier, Passport]:
    """Rebuild a network from its checkpoint or run folder, in evaluation mode.

    Raises:
        CembenchError: as `read_passport`, and for weights that do not fit the architecture.
    """
    path = checkpoint_file(path)
    content, passport = _read(path)
    model = passport.build()
    try:
        model.load_state_dict(load(content))
    except (RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CembenchError(f"{path}: does not fit its architecture: {reason}") from error
    model.passport = passport
    return model.to(device).eval(), passport

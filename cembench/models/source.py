"""Source of the evaluated network: the checkpoint of a run, or a network in memory."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from cembench.data import DataSettings
from cembench.data.split import Split
from cembench.energy.threat import Threat
from cembench.models import ModelSettings, Shape
from cembench.models.checkpoint import network_of
from cembench.models.classifier import Classifier, try_on
from cembench.models.function import FunctionModel
from cembench.models.metadata import CheckpointMetadata, read_sealed_checkpoint
from cembench.util.devices import device_of
from cembench.util.errors import CembenchError
from cembench.util.files import read_bytes
from cembench.util.files.layout import RunLayout
from cembench.util.files.seal import seal_at_start


class InMemoryModel(ModelSettings):
    """Network that exists only in memory: no file says how to build it again.

    Attributes:
        kind: name of its class, or of the function.
    """

    name: ClassVar[str] = "live"
    kind: str

    @property
    def title(self) -> str:
        """Name of its class, or of the function."""
        return self.kind

    def build(self, shape: Shape, classes: int) -> nn.Module:
        """Refuse."""
        raise CembenchError(f"a {self.kind} in memory; save it, and import it with `import_model`")


@dataclass(frozen=True)
class ModelSource:
    """Network with its metadata.

    Attributes:
        metadata: its metadata.
        file: its checkpoint; for a network in memory the path that one would have.
        checksum: SHA-256 of that file; empty for a network in memory.
        model: the network in memory, if it does not come from a file.
        seal: the seal in that file, if it has one.
    """

    metadata: CheckpointMetadata
    file: Path
    checksum: str = ""
    model: Classifier | None = None
    seal: str = ""

    @staticmethod
    def at(path: Path) -> ModelSource:
        """Return the source of a checkpoint or a run folder.

        Raises:
            CembenchError: as `read_metadata`.
        """
        file = RunLayout.at(path).checkpoint
        content, metadata = read_sealed_checkpoint(file)
        checksum = hashlib.sha256(content).hexdigest()
        return ModelSource(metadata, file, checksum, seal=seal_at_start(content))

    @staticmethod
    def of(
        module: nn.Module,
        data: DataSettings | None = None,
        threat: Threat | None = None,
        folder: Path = Path("in-memory"),
    ) -> ModelSource:
        """Return the source of a network in memory, which is not changed.

        Args:
            module: a network from `load`, or any network from float images in [0, 1], N×C×H×W, to
                N×K logits.
            data: the data set that it classifies; that of its metadata unless given.
            threat: threat model; the customary one of the data set unless given.
            folder: folder of its records.

        Raises:
            CembenchError: when the data set is not known, or the network fails on its images.
        """
        known = module.metadata if isinstance(module, Classifier) else None
        if data is None and known is None:
            raise CembenchError(
                "data: say which data set the network classifies, or give test images: (x, y)"
            )
        if known is None:
            assert data is not None
            whole, settings = data.example_split(), InMemoryModel(kind=_title(module))
            module = wrapped(module, whole)
            trained = whole.fingerprint if data.has_training else ""
            known = imported_metadata(settings, module, data, whole, threat, fingerprint=trained)
        changes = {"data": data, "threat": threat}
        given = {key: value for key, value in changes.items() if value is not None}
        assert isinstance(module, Classifier)
        file = RunLayout(folder).checkpoint
        return ModelSource(known.model_copy(update=given), file, "", module)

    def moved(self, root: str | None) -> ModelSource:
        """Return the same network with its data under another root; itself for None."""
        return replace(self, metadata=self.metadata.moved(root))

    @property
    def name(self) -> str:
        """Name in tables: that of its run, or of the class of a network in memory."""
        return RunLayout.at(self.file).name if self.model is None else self.metadata.model.title

    def load(self, device: torch.device) -> Classifier:
        """Return the network on a device, in evaluation mode if it comes from a file.

        Raises:
            CembenchError: as `load_checkpoint`, and when the file has been replaced since.
        """
        if self.model is not None:
            return self.model.to(device)
        content = read_bytes(self.file)
        if hashlib.sha256(content).hexdigest() != self.checksum:
            raise CembenchError(f"{self.file}: training went on meanwhile; evaluate again")
        return network_of(content, self.metadata, self.file).to(device)


def imported_metadata(
    settings: ModelSettings,
    model: Classifier,
    data: DataSettings,
    whole: Split,
    threat: Threat | None = None,
    **more: Any,
) -> CheckpointMetadata:
    """Return the metadata of a network that was trained elsewhere.

    Its data set has the training split `whole`, and a customary threat model unless one is given;
    `more` are other fields, or other values.
    """
    values = {
        "model": settings,
        "shape": list(whole.shape),
        "classes": list(whole.classes),
        "mean": model.mean.flatten().tolist(),
        "std": model.std.flatten().tolist(),
        "data": data,
        "threat": threat or data.threat,
        "finished": True,
        "fingerprint": whole.fingerprint,
        "method": "imported",
    }
    return CheckpointMetadata.parse(values | more)


def wrapped(
    module: nn.Module, whole: Split, statistics: tuple[Tensor, Tensor] | None = None
) -> Classifier:
    """Return a network with a pixel normalisation before it, after a test on one image.

    Raises:
        ModelError: when it does not give one logit per class.
    """
    channels = whole.shape[0]
    mean, std = statistics or (torch.zeros(channels), torch.ones(channels))
    model = Classifier(module, mean, std).to(device_of(module))
    try_on(model, whole.shape, len(whole.classes), _title(module))
    return model


def _title(module: nn.Module) -> str:
    return module.title if isinstance(module, FunctionModel) else type(module).__name__

"""Networks and data of the benchmarks: digits in the shape of CIFAR-10, and small ResNets.

The images are real and need no download, and cost as much as CIFAR-10's; training takes seconds.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch.nn.functional import interpolate

from cembench.data import DataSettings
from cembench.data.digits import Digits
from cembench.data.split import Split
from cembench.energy.threat import Threat
from cembench.models import ModelSettings
from cembench.models.classifier import Classifier
from cembench.models.metadata import CheckpointMetadata
from cembench.training.config import Experiment
from cembench.training.trainer import Trainer
from cembench.util.progress import Bar

SHAPE, CLASSES = (3, 32, 32), 10
EPOCHS, BATCH = 10, 64
SMALL: dict[str, Any] = {"name": "resnet18", "width": 8}
METHODS: dict[str, Any] = {
    "robust": {"name": "at", "negatives": {"name": "pgd", "steps": 5}},
    "standard": "standard",
}


class EnlargedDigits(Digits):
    """Digits as 3×32×32 images."""

    name: ClassVar[str] = "digits-enlarged"

    @property
    def threat(self) -> Threat:
        """A fifth of the grey range: robust accuracy is about half of the clean accuracy."""
        return Threat(norm="linf", eps=0.2)

    def load(self, split: Literal["train", "test"]) -> Split:
        """Return one split, interpolated."""
        small = super().load(split)
        pixels = small.pixels() * 255
        large = interpolate(pixels, size=SHAPE[1:], mode="bilinear").round().byte()
        return Split.of(large.repeat(1, SHAPE[0], 1, 1), small.labels, small.classes)


def described(model: ModelSettings) -> str:
    """Return the name of an architecture, with its settings that are not the usual ones."""
    fields = type(model).model_fields.items()
    values = {key: (getattr(model, key), field.default) for key, field in fields}
    changed = [f"{key} {value}" for key, (value, usual) in values.items() if value != usual]
    return model.title + (f" ({', '.join(changed)})" if changed else "")


def trained(kind: str, device: str, model: Any = SMALL) -> Classifier:
    """Train and return a network, `robust` or `standard`; a small ResNet unless given."""
    settings = {
        "data": EnlargedDigits(),
        "model": model,
        "method": METHODS[kind],
        "epochs": EPOCHS,
        "batch_size": BATCH,
        "optimizer": {"lr": 0.05},
        "schedule": {"name": "one-cycle"},
        "validation": {"every": EPOCHS},
    }
    trainer = Trainer(Experiment.parse(settings), torch.device(device))
    with Bar(f"{kind} network", EPOCHS * trainer.steps * trainer.batch) as bar:
        for _ in range(EPOCHS):
            trainer.run_epoch(bar)
    return trainer.model.to(memory_format=torch.contiguous_format).eval()


def untrained_metadata(model: ModelSettings, data: DataSettings) -> CheckpointMetadata:
    """Return the metadata of a network that is not trained."""
    images = data.load("test")
    return CheckpointMetadata(
        model=model,
        shape=list(images.shape),
        classes=list(images.classes),
        mean=[0.0] * images.shape[0],
        std=[1.0] * images.shape[0],
        data=data,
        threat=data.threat,
        method="none",
    )

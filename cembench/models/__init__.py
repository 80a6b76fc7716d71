"""Architectures by name; each is a settings class that builds a network for a shape and classes."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Literal

from cembench.util.registry import Registry
from cembench.util.settings import Choice

if TYPE_CHECKING:
    from torch import nn

Shape = tuple[int, int, int]
Activation = Literal["relu", "silu", "softplus"]
Norm = Literal["batch", "dual", "group", "none"]


class ModelSettings(Choice):
    """Architecture; the pixel normalisation is added by `Classifier`."""

    @property
    def title(self) -> str:
        """Name in tables."""
        return self.name

    @abstractmethod
    def build(self, shape: Shape, classes: int) -> nn.Module:
        """Return a network from normalised images, N×C×H×W, to logits, N×classes.

        It may also have `features(x)`, the N×D input of its last layer `head`, which encoders and
        probes replace.
        """


models: Registry[ModelSettings] = Registry(
    "model",
    ModelSettings,
    {
        "small_cnn": "cembench.models.small_cnn:SmallCNN",
        "resnet18": "cembench.models.resnet:ResNet18",
        "preact_resnet18": "cembench.models.resnet:PreActResNet18",
        "wide_resnet": "cembench.models.resnet:WideResNet",
        "torchvision": "cembench.models.libraries:TorchvisionModel",
        "timm": "cembench.models.libraries:TimmModel",
        "robustbench": "cembench.models.libraries:RobustBenchModel",
        "factory": "cembench.models.factory:Factory",
    },
)

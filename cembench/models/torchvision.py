"""Classification architectures of torchvision."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from cembench.models import ModelSettings, Shape
from cembench.util.errors import ModelError
from cembench.util.settings import nearest


class TorchvisionModel(ModelSettings):
    """Classification architecture of torchvision, with random weights.

    Attributes:
        arch: name in `torchvision.models.list_models()`, such as `resnet50` or `vit_b_16`.
    """

    name: ClassVar[str] = "torchvision"
    arch: str

    @property
    def title(self) -> str:
        """Name of the architecture."""
        return self.arch

    def build(self, shape: Shape, classes: int) -> nn.Module:
        """Build the network; grey images are repeated to three channels."""
        from torchvision import models

        known = models.list_models(module=models)
        if self.arch not in known:
            raise ModelError(f"model.arch: unknown '{self.arch}'; {nearest(self.arch, known)}")
        options: dict[str, Any] = {"weights": None, "num_classes": classes}
        if self.arch.startswith("vit_"):
            options["image_size"] = shape[1]
        if self.arch in ("googlenet", "inception_v3"):
            options |= {"aux_logits": False, "init_weights": True}
        net = models.get_model(self.arch, **options)
        return nn.Sequential(ThreeChannels(), net) if shape[0] == 1 else net


class ThreeChannels(nn.Module):
    """Repeat one channel to three."""

    def forward(self, x: Tensor) -> Tensor:
        """Return a view with three equal channels."""
        return x.expand(-1, 3, -1, -1)

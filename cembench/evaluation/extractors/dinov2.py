"""DINOv2 (Oquab et al., arXiv 2304.07193), whose features arXiv 2306.04675 recommends."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from cembench.evaluation.extractors import Embed, Extractor
from cembench.util.errors import CembenchError
from cembench.util.lazy import lazy_imports
from cembench.util.settings import nearest

with lazy_imports():
    import torch
    from torch import Tensor

    from cembench.evaluation.extractors.square import square
    from cembench.models.state_dict import read_weights

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


class DinoV2(Extractor):
    """The class token of a DINOv2 network of timm, with weights from a file; there are no logits.

    `--extractor-weights FILE` names the weights, of timm or of the authors. With the settings as
    they are, FD is the FD-DINOv2 of arXiv 2306.04675 up to how images and position embeddings
    are resized.

    Attributes:
        model: a name of `timm.list_models("*dinov2")`, such as `vit_small_patch14_dinov2`.
        size: pixels that images are resized to, bicubically; a multiple of 14.
    """

    name: ClassVar[str] = "dinov2"
    model: Annotated[str, Field(pattern=r"^vit_\w+_dinov2$")] = "vit_large_patch14_dinov2"
    size: Annotated[int, Field(ge=14, le=1022, multiple_of=14)] = 224

    @property
    def title(self) -> str:
        """The model and the size, as in `dinov2-vit-large-patch14@224`."""
        arch = self.model.removesuffix("_dinov2").replace("_", "-")
        return f"dinov2-{arch}@{self.size}"

    def weights(self, given: Path | None) -> Path:
        """Return the given file."""
        if find_spec("timm") is None:
            raise CembenchError("the extractor dinov2 needs timm: pip install 'cembench[dinov2]'")
        remedy = f"give the weights of {self.model} with --extractor-weights FILE"
        if given is None:
            raise CembenchError(f"the extractor dinov2 downloads nothing; {remedy}")
        if not given.is_file():
            raise CembenchError(f"{given}: no such file; {remedy}")
        return given

    def build(self, weights: Path, device: torch.device) -> Embed:
        """Return the embedding."""
        net = self._network(weights).to(device).eval().requires_grad_(False)
        mean, deviation = (
            torch.tensor(values, device=device)[:, None, None] for values in (MEAN, DEVIATION)
        )

        def embed(images: Tensor) -> Tensor:
            x = square(images, self.size).clamp(0, 255) / 255
            features: Tensor = net((x - mean) / deviation)
            return features

        return embed

    def _network(self, weights: Path) -> torch.nn.Module:
        import timm
        from timm.models.vision_transformer import checkpoint_filter_fn

        if not timm.is_model(self.model):
            hint = nearest(self.model, timm.list_models("*dinov2"))
            raise CembenchError(f"samples.extractor.model: unknown '{self.model}'; {hint}")
        net: Any = timm.create_model(self.model, num_classes=0, img_size=self.size)
        values = read_weights(weights)
        try:
            net.load_state_dict(checkpoint_filter_fn(values, net))
        except (RuntimeError, KeyError, ValueError, AttributeError) as error:
            raise CembenchError(f"{weights}: not the weights of {self.model}") from error
        return net

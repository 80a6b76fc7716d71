"""Views of images for contrastive learning: random augmentations by kornia, per batch.

Which augmentations keep the meaning of an image depends on the data: a mirrored digit is no digit,
and grey images have no colours to change. So there is one preset per kind of image.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import Field

from cembench.util.errors import CembenchError
from cembench.util.lazy import lazy_imports
from cembench.util.settings import Fraction, NonNegative, Settings

with lazy_imports():
    import torch
    from torch import Tensor, nn

    from cembench.util.rng import for_all

Shape = tuple[int, int, int]
Probability = Annotated[float, Field(ge=0, le=1)]

PRESETS: dict[str, dict[str, Any]] = {
    # 8×8 scans: no mirror, and a shift of a pixel is an eighth of the image
    "grey-8": {"area": 0.8, "rotate": 10.0, "shift": 0.1, "light": 0.3},
    # MNIST, clothes: 28×28
    "grey-28": {"area": 0.4, "rotate": 15.0, "shift": 0.1, "light": 0.4},
    # SimCLR's for CIFAR-10: colours distorted at strength 0.5, no blur
    "colour-32": {
        "area": 0.2,
        "mirror": True,
        "light": 0.4,
        "colour": 0.4,
        "hue": 0.1,
        "grey": 0.2,
    },
}


class Views(Settings):
    """The random augmentations of a view; each setting is the preset's unless given.

    Attributes:
        preset: `auto` goes by channels and size.
        area: the smallest share of the image that a crop keeps.
        mirror: whether to mirror left to right.
        rotate: degrees, at most, each way, in half of the views.
        shift: share of the side, at most, each way, in half of the views.
        light: change of brightness and contrast, at most, each way, in four of five views.
        colour: change of saturation, likewise.
        hue: change of hue, likewise, in turns of the colour wheel.
        grey: probability of losing all colour.
        noise: σ of Gaussian noise.
    """

    preset: Literal["auto", "grey-8", "grey-28", "colour-32"] = "auto"
    area: Annotated[float, Field(gt=0, le=1)] | None = None
    mirror: bool | None = None
    rotate: Annotated[float, Field(ge=0, le=180)] | None = None
    shift: Fraction | None = None
    light: Fraction | None = None
    colour: Fraction | None = None
    hue: Annotated[float, Field(ge=0, le=0.5)] | None = None
    grey: Probability | None = None
    noise: NonNegative | None = None

    def resolved(self, shape: Shape) -> dict[str, Any]:
        """Return all settings by name for images of a shape, those of the preset filled in.

        Raises:
            CembenchError: for changes of colour in grey images.
        """
        coloured = [key for key in ("colour", "hue", "grey") if getattr(self, key)]
        if shape[0] == 1 and coloured:
            raise CembenchError(f"views.{coloured[0]}: the images are grey; leave it out")
        none = {"area": 1.0, "mirror": False}
        none |= dict.fromkeys(("rotate", "shift", "light", "colour", "hue", "grey", "noise"), 0.0)
        chosen = _preset(shape) if self.preset == "auto" else self.preset
        given = {k: v for k, v in self.dump().items() if v is not None and k != "preset"}
        return none | PRESETS[chosen] | given

    def pair(self, x: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Return two views of images in [0, 1], N×C×H×W each, drawn by torch's global generator.

        Several processes that share a batch, and its generator, draw what one process draws.
        """
        channels, height, width = x.shape[1:]
        view = _pipeline(self, (channels, height, width)).to(x.device)
        with torch.autocast(x.device.type, enabled=False):  # half a pixel is lost in bfloat16
            first, second = (for_all(view, x, generator).clamp(0, 1) for _ in range(2))
        return first, second


def _preset(shape: Shape) -> str:
    if shape[0] == 3:
        return "colour-32"
    return "grey-8" if max(shape[1:]) < 16 else "grey-28"


@lru_cache
def _pipeline(views: Views, shape: Shape) -> nn.Sequential:
    from kornia import augmentation as kornia

    on = views.resolved(shape)
    light, colour, shift = on["light"], on["colour"], (on["shift"], on["shift"])
    steps = {
        kornia.RandomResizedCrop(shape[1:], scale=(on["area"], 1.0)): on["area"] < 1,
        kornia.RandomAffine(on["rotate"], shift, p=0.5): on["rotate"] or on["shift"],
        kornia.RandomHorizontalFlip(): on["mirror"],
        kornia.RandomGrayscale(p=on["grey"]): on["grey"],
    }
    if shape[0] == 3:
        steps[kornia.ColorJitter(light, light, colour, on["hue"], p=0.8)] = (
            light or colour or on["hue"]
        )
    else:
        limits = (1 - light, 1 + light)
        steps[kornia.RandomBrightness(limits, p=0.8)] = light
        steps[kornia.RandomContrast(limits, p=0.8)] = light
    steps[kornia.RandomGaussianNoise(std=on["noise"], p=1.0)] = on["noise"]
    return nn.Sequential(*(step for step, wanted in steps.items() if wanted))

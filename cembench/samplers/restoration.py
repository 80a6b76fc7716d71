"""Inpainting and denoising: samples that keep what is known of an image.

Both are the ascent of an energy sampler from a damaged image. After each step, inpainting puts the
known pixels back, and denoising projects onto the ℓ2 ball around the noisy image in which the
original is expected: its radius is the length σ·√(C·H·W) of the noise.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, SerializeAsAny, model_validator

from cembench.energy.norms import L2
from cembench.energy.threat import Threat
from cembench.samplers import Sampler, SamplerContext, samplers
from cembench.samplers.edit import Edit
from cembench.samplers.energy import EnergySampler
from cembench.util.lazy import lazy_imports
from cembench.util.settings import Positive

with lazy_imports():
    import torch
    from torch import Tensor, nn

    from cembench.samplers.edited import Edited
    from cembench.util.rng import normal, uniform

if TYPE_CHECKING:
    from cembench.energy.ascent import Constraint

NO_THREAT = Threat(norm="l2", eps=0.0)  # energy samplers do not look at it
HALVES = ("top", "bottom", "left", "right", "centre")


def _energy_sampler(value: Any) -> Any:
    if isinstance(value, EnergySampler) and not value.needs().bank_size and not value.coupled:
        return value
    raise ValueError(f"sampler {value.name} restores no images; give rcs, cs, ta or sgld")


Chains = Annotated[SerializeAsAny[Sampler], samplers.field(), AfterValidator(_energy_sampler)]


@dataclass(frozen=True)
class KnownPixels:
    """Images in [0, 1] whose known pixels are those of the centre.

    Attributes:
        known: booleans of a shape that broadcasts over images, 1×1×H×W.
    """

    known: Tensor

    def projection(self, centre: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the function that puts the known pixels of `centre` back."""
        return lambda x: torch.where(self.known, centre, x.clamp(0, 1))


class Restoration(Edit):
    """Restoration of a damaged image by the chains of a sampler.

    Attributes:
        sampler: whose potential is ascended; `rcs` unless given, with the steps in `chains`.
        chains: settings of the sampler where others are not given.
    """

    sampler: Chains
    chains: ClassVar[Mapping[str, Any]]

    @model_validator(mode="before")
    @classmethod
    def _with_chains(cls, values: Any) -> Any:
        given = values.get("sampler", "rcs")
        given = {"name": given} if isinstance(given, str) else given
        name = given.get("name", "rcs") if isinstance(given, Mapping) else ""
        if name in samplers.names() and issubclass(samplers.find(name), EnergySampler):
            given = {"name": name, **cls.chains, **given}
        return {**values, "sampler": given}

    @abstractmethod
    def damaged(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Constraint, Tensor]:
        """Return initial images, what results must satisfy, and its centre."""

    def apply(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        target: Tensor | None,
        generator: torch.Generator,
    ) -> Edited:
        """Return restored images, with the target or the image's own class as that of a sample."""
        wanted = y if target is None else target
        start, constraint, centre = self.damaged(x, generator)
        context = SamplerContext(NO_THREAT, generator)
        assert isinstance(self.sampler, EnergySampler)
        found = self.sampler.ascend(model, start, wanted, context, within=(constraint, centre))
        with torch.no_grad():
            out, before = model(found).float(), model(start).float()
        return Edited(found, start, wanted, out, before, x, y)

    def figures(self, edited: Edited) -> dict[str, Tensor]:
        """Return ℓ2 error and PSNR in decibels, of the results and of what they began with."""
        found: dict[str, Tensor] = {}
        for name, images in (("", edited.images), ("_start", edited.starts)):
            error = (images - edited.originals).flatten(1)
            found[f"l2{name}"] = error.norm(dim=1)
            found[f"psnr{name}"] = -10 * error.square().mean(1).clamp_min(1e-10).log10()
        return found

    def summary(self, figures: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the means of all figures."""
        return {key: float(values.mean()) for key, values in figures.items()}

    def lines(self, summary: Mapping[str, float]) -> list[str]:
        """Return the summary as text."""
        return [
            f"{words}: {summary[key]:.3g} (damaged images: {summary[f'{key}_start']:.3g})"
            for words, key in (
                ("mean PSNR to the originals, dB", "psnr"),
                ("mean l2 error to the originals", "l2"),
            )
        ]


class Inpaint(Restoration):
    """Inpainting: unknown pixels start as noise, known ones are held at every step.

    Attributes:
        part: what is unknown: the `top`, `bottom`, `left` or `right` half, the `centre` (a square
            of half the side), or random pixels, such as `random:0.5` for half of them.
    """

    title: ClassVar[str] = "inpainted images"
    result: ClassVar[str] = "filled"
    chains: ClassVar[Mapping[str, Any]] = {"start": "noise", "steps": 20}
    part: Annotated[str, AfterValidator(lambda value: _known_part(value))]

    def known(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return which pixels are known, 1×1×H×W; the same ones of all images."""
        height, width = x.shape[2:]
        known = torch.ones(1, 1, height, width, dtype=torch.bool, device=x.device)
        if self.part.startswith("random"):
            return uniform(known.shape, generator) >= float(self.part.partition(":")[2] or 0.5)
        down, right = height // 2, width // 2
        quarter = slice(height // 4, height // 4 + down), slice(width // 4, width // 4 + right)
        unknown = {
            "top": (slice(down), slice(None)),
            "bottom": (slice(height - down, None), slice(None)),
            "left": (slice(None), slice(right)),
            "right": (slice(None), slice(width - right, None)),
            "centre": quarter,
        }[self.part]
        known[0, 0, unknown[0], unknown[1]] = False
        return known

    def damaged(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Constraint, Tensor]:
        """Return images with noise in the unknown pixels, and those to put back."""
        known = self.known(x, generator)
        return torch.where(known, x, uniform(x.shape, generator)), KnownPixels(known), x

    def before(self, edited: Edited) -> dict[str, Tensor]:
        """Return the originals, and the same with grey in place of what is unknown."""
        known = (edited.starts == edited.originals).all(1, keepdim=True).all(0, keepdim=True)
        masked = torch.where(known, edited.originals, torch.full_like(edited.originals, 0.5))
        return {"original": edited.originals, "masked": masked}


class Denoise(Restoration):
    """Denoising: ascent from the noisy image, in the ball in which the original is expected.

    Attributes:
        sigma: standard deviation σ of the Gaussian noise, in pixels on [0, 1]. The noisy image is
            cut to [0, 1], so the noise may be shorter than the radius σ·√(C·H·W).
    """

    title: ClassVar[str] = "denoised images"
    result: ClassVar[str] = "denoised"
    chains: ClassVar[Mapping[str, Any]] = {"start": "data", "steps": 10}
    sigma: Annotated[Positive, Field(lt=1)]

    def damaged(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Constraint, Tensor]:
        """Return noisy images, and the ball around them."""
        noisy = (x + self.sigma * normal(x.shape, generator)).clamp(0, 1)
        return noisy, L2(self.sigma * math.sqrt(x[0].numel())), noisy

    def before(self, edited: Edited) -> dict[str, Tensor]:
        """Return the originals and the noisy images."""
        return {"original": edited.originals, "noisy": edited.starts}


def _known_part(value: str) -> str:
    kind, _, share = value.partition(":")
    if kind == "random":
        try:
            if 0 < float(share or 0.5) < 1:
                return value
        except ValueError:
            pass
    elif value in HALVES:
        return value
    raise ValueError(f"give one of {', '.join(HALVES)}, or random:SHARE with a share below 1")

"""Base of the methods that model the density of the data, which may be a batch of its own."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from cembench.data.augmentation import Augment
from cembench.methods import Supervised
from cembench.util.errors import ConfigError
from cembench.util.lazy import lazy_imports
from cembench.util.settings import optional_field

with lazy_imports():
    from torch import Tensor
    from torch.nn.functional import softplus

PLAIN = Augment(crop=0, flip=False, resized_crop=0)


class Density(Supervised):
    """Supervised method with log p(x) in its loss.

    Attributes:
        own_batch: whether log p(x) is that of a batch of its own, in another order of the images.
        density_augment: augmentation of that batch; none by default.
    """

    own_batch: bool = optional_field(False)
    density_augment: Augment = optional_field(PLAIN)

    @model_validator(mode="after")
    def _augments_a_batch(self) -> Self:
        default = type(self).model_fields["density_augment"].default
        if not self.own_batch and self.density_augment != default:
            raise ConfigError.single("needs own_batch: true", "density_augment")
        return self

    @property
    def branches(self) -> tuple[Augment, ...]:
        """The labelled batch, and that of the density if it is another one."""
        return (self.augment, self.density_augment) if self.own_batch else (self.augment,)

    def halves(self, both: Tensor) -> tuple[Tensor, Tensor]:
        """Return what belongs to the labelled batch and to that of the density; maybe the same."""
        parts = both.chunk(len(self.branches))
        return parts[0], parts[-1]


def told_apart(data: Tensor, sampled: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss of telling data from samples, and what to log of it.

    It is softplus(−LSE x) + softplus(LSE x⁻), both means: LSE is the logit of "data".

    Args:
        data: LSE f(x, ·), N.
        sampled: LSE f(x⁻, ·), N.
    """
    told = softplus(-data).mean() + softplus(sampled).mean()
    return told, {
        "told": told.detach(),
        "separated": ((data > 0).float().mean() + (sampled < 0).float().mean()) / 2,
        "lse_data": data.mean().detach(),
        "lse_negatives": sampled.mean().detach(),
    }

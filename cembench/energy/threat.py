"""The threat model: which perturbations count, in pixels on the [0, 1] scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from cembench.util.errors import ConfigError
from cembench.util.settings import NonNegative, Settings

if TYPE_CHECKING:
    from cembench.energy.ascent import Ball


class Threat(Settings):
    """All perturbations of at most `eps` in the given norm that keep the image in [0, 1].

    Attributes:
        norm: of the perturbation.
        eps: its largest size, in pixels on [0, 1].
    """

    norm: Literal["linf", "l2"]
    eps: NonNegative

    @property
    def ball(self) -> Ball:
        """The images that these perturbations reach, as samplers and attacks project onto them."""
        from cembench.energy.ascent import BALLS

        return BALLS[self.norm](self.eps)

    @property
    def radius(self) -> str:
        """The radius as people write it: `8/255` for a multiple of 1/255, else decimal."""
        steps = self.eps * 255
        whole = 1 <= steps < 255 and abs(steps - round(steps)) < 1e-6
        return f"{round(steps)}/255" if whole else f"{self.eps:.6g}"

    def __str__(self) -> str:
        return f"{self.norm}-{self.radius}"

    @property
    def slug(self) -> str:
        """The same for a file name: `linf-8_255`."""
        return str(self).replace("/", "_")


class ThreatChange(Settings):
    """What a config or protocol says of the threat model; the rest is as it was.

    Attributes:
        norm: of the perturbation. Another norm needs its own `eps`, since a radius means something
            else in it.
        eps: its largest size, in pixels on [0, 1].
    """

    norm: Literal["linf", "l2"] | None = None
    eps: NonNegative | None = None

    def over(self, base: Threat) -> Threat:
        """Return `base` with what is given here in its place.

        Raises:
            ConfigError: for another norm without `eps`.
        """
        norm = self.norm or base.norm
        if self.eps is None and norm != base.norm:
            raise ConfigError.single(f"give it too, since the norm is not {base.norm}", "eps")
        return Threat(norm=norm, eps=base.eps if self.eps is None else self.eps)

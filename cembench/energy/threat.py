"""The threat model: which perturbations count, in pixels on the [0, 1] scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from cembench.energy.norms import NORMS, Ball, by_norm
from cembench.util.errors import ConfigError
from cembench.util.settings import NonNegative, Settings


def known_norm(name: str) -> str:
    """Return the name of a norm, for settings.

    Raises:
        ValueError: naming the known ones.
    """
    if name not in NORMS:
        raise ValueError(f"give one of {', '.join(NORMS)}")
    return name


NormName = Annotated[str, AfterValidator(known_norm)]
Radius = Annotated[NonNegative, Field(le=1e8)]  # no norm and no image has a larger one


class Threat(Settings):
    """All perturbations of at most `eps` in the given norm that keep the image in [0, 1].

    Attributes:
        norm: of the perturbation.
        eps: its largest size, in pixels on [0, 1].
    """

    norm: NormName
    eps: Radius

    @property
    def ball(self) -> Ball:
        """The images that these perturbations reach: attacks and samplers project onto it."""
        return by_norm(NORMS, self.norm, "the threat model")(self.eps)

    @property
    def radius(self) -> str:
        """The radius as text: `8/255` for a multiple of 1/255, else decimal."""
        steps = self.eps * 255
        whole = 1 <= steps < 255 and abs(steps - round(steps)) < 1e-6
        return f"{round(steps)}/255" if whole else f"{self.eps:.6g}"

    def __str__(self) -> str:
        return f"{self.norm}-{self.radius}"

    @property
    def slug(self) -> str:
        """Norm and radius for a file name: `linf-8_255`."""
        return str(self).replace("/", "_")


def _number(text: str) -> float | str:
    """Return the number that a text holds; settings read fractions, and refuse what is neither."""
    try:
        return float(text)
    except ValueError:
        return text


def threat_values(text: str) -> dict[str, Any]:
    """Return a text such as `linf 8/255` as settings; what is missing or wrong they refuse."""
    norm, _, eps = text.strip().replace("-", " ", 1).partition(" ")
    return {"norm": norm, **({"eps": _number(eps.strip())} if eps else {})}


class ThreatChange(Settings):
    """The part of a threat model that a config or protocol sets; the rest is the data set's.

    Attributes:
        norm: of the perturbation. Another norm needs its own `eps`, since radii of different
            norms do not compare.
        eps: its largest size, in pixels on [0, 1].
    """

    norm: NormName | None = None
    eps: Radius | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_text(cls, value: Any) -> Any:
        """Take a text such as `linf 8/255` too."""
        return threat_values(value) if isinstance(value, str) else value

    @classmethod
    def of(cls, value: str | Mapping[str, Any] | Threat | None) -> Self:
        """Return what is given of a threat model, as settings or as a text such as `linf 8/255`.

        Raises:
            ConfigError: for anything else, and wrong values.
        """
        if isinstance(value, str):
            value = threat_values(value)
        return cls.parse(value.dump() if isinstance(value, Threat) else value or {})

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.norm is not None and self.eps is not None:
            NORMS[self.norm](self.eps).require_below_diameter()
        return self

    def over(self, base: Threat, key: str = "eps") -> Threat:
        """Return `base` with what is given here in its place.

        Args:
            base: the threat model of a data set or a checkpoint.
            key: the place of `eps` in the settings, for errors.

        Raises:
            ConfigError: for another norm without `eps`, and for an `eps` that allows every image.
        """
        norm = self.norm or base.norm
        if self.eps is None and norm != base.norm:
            raise ConfigError.single(
                f"give it too, since the norm is not {base.norm}", *key.split(".")
            )
        if self.eps is not None:
            NORMS[norm](self.eps).require_below_diameter(key)
        return Threat(norm=norm, eps=base.eps if self.eps is None else self.eps)

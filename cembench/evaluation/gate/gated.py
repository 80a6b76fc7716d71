"""A number that a baseline keeps, with how much worse it may get."""

from __future__ import annotations

from typing import Literal

from cembench.util.settings import NonNegative, Settings


class GatedValue(Settings):
    """A number that is no count of images.

    Attributes:
        value: what it was.
        tolerance: by how much it may get worse.
        better: which way that is not.
    """

    value: float
    tolerance: NonNegative
    better: Literal["higher", "lower"]

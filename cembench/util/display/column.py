"""Columns of sample metrics: `rcs-gaussian_lite0@64_n256_kid` as the four things it names."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Self

PARTS = re.compile(r"(?P<sampler>.+)_(?P<extractor>[^_]+)_n(?P<count>\d+)_(?P<metric>.+)")


@dataclass(frozen=True)
class Column:
    """A column of a table; what is measured differently never shares one.

    Attributes:
        sampler: title of the sampler.
        extractor: name and input size of the feature extractor.
        count: number of samples.
        metric: such as `kid` or `kid_error`.
    """

    sampler: str
    extractor: str
    count: int
    metric: str

    @property
    def name(self) -> str:
        """The name of the column."""
        return f"{self.sampler}_{self.extractor}_n{self.count}_{self.metric}"

    @classmethod
    def parse(cls, name: str) -> Self | None:
        """Return the column of a name; None for columns of another kind."""
        found = PARTS.fullmatch(name)
        return found and cls(found[1], found[2], int(found[3]), found[4])

    def of(self, metric: str) -> Self:
        """Return the column of another metric of the same samples."""
        return replace(self, metric=metric)

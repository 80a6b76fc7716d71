"""Panels of the page and of plots: one that cannot be made is named, and costs no other."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from cembench.util.errors import CembenchError

log = logging.getLogger("cembench")
T = TypeVar("T")


@dataclass
class Panels:
    """Panels that are read from files, or drawn.

    Attributes:
        problems: by panel, why it could not be made.
    """

    problems: dict[str, str] = field(default_factory=dict)

    def make(self, panel: str, work: Callable[[], T]) -> T | None:
        """Return what `work` makes; where it fails in any way, note why and return None."""
        try:
            return work()
        except CembenchError as error:
            self.problems[panel] = str(error)
        except Exception as error:
            self.problems[panel] = f"cannot be shown, {error!r}"
        return None

    @property
    def lines(self) -> list[str]:
        """The problems, each with its panel."""
        return [f"{panel}: {why}" for panel, why in self.problems.items()]


def tell(lines: Iterable[str]) -> None:
    """Warn of problems, each once."""
    for line in dict.fromkeys(lines):
        log.warning("cembench: %s", line)

"""What can go wrong for a user, as opposed to a bug: shown as one line, with exit code 2."""

from __future__ import annotations

from typing import Self


class CembenchError(Exception):
    """Something the user can put right; the message names the thing and the remedy.

    Attributes:
        reporting_rank: the process that saw it, where all of several raise it; the first reports
            it.
    """

    reporting_rank: int | None = None

    @classmethod
    def on_every_rank(cls, text: str) -> Self:
        """Return an error that every process raises."""
        error = cls(text)
        error.reporting_rank = 0
        return error


class TrainingDiverged(CembenchError):
    """Training diverged more often than it may be rolled back, or may not be rolled back."""


class SamplingError(CembenchError):
    """A sampler cannot start, or left the finite numbers; other samplers may still do."""


class ModelError(CembenchError):
    """A network broke its contract: wrong number of logits, or logits that are not finite."""


class ConfigError(CembenchError):
    """Wrong settings. Each problem is a place such as `("method", "eps")` and a sentence."""

    def __init__(self, problems: list[tuple[tuple[str, ...], str]], source: str = "") -> None:
        self.problems = problems
        self.source = source
        super().__init__(problems)

    @classmethod
    def single(cls, text: str, *place: str) -> ConfigError:
        """Make an error of one problem."""
        return cls([(place, text)])

    def within(self, *place: str) -> ConfigError:
        """Return the same problems, seen from the settings that enclose them."""
        return ConfigError([((*place, *inner), text) for inner, text in self.problems], self.source)

    def __str__(self) -> str:
        lines = (f"{'.'.join(place)}: {text}" if place else text for place, text in self.problems)
        return (f"{self.source}: " if self.source else "") + "; ".join(lines)

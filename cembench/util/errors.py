"""Errors that a user can put right, as opposed to bugs: one line on stderr, exit code 2."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

SHOWN = 20  # problems that a message lists
LONGEST = 200  # characters of somebody else's error that a message repeats


class CembenchError(Exception):
    """Something the user can put right; the message names the thing and the remedy.

    Attributes:
        reporting_rank: where all processes raise it, the rank that it happened in; rank 0 reports
            it. None where only this process raises it.
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


class NoGradientError(ModelError):
    """A network has no gradient with respect to its images.

    Attributes:
        reason: what autograd says of it.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"the network has no gradient with respect to its images: {reason}")


class ConfigError(CembenchError, ValueError):
    """Wrong settings. Each problem is a place such as `("method", "eps")` and a sentence.

    It is a ValueError, so validators may raise it: pydantic collects it with the other mistakes,
    and `Settings.parse` puts its problems where the validator stands.

    Attributes:
        problems: all of them, each with its place in the settings.
        source: the file or option to blame, which precedes the problems in the message.
    """

    def __init__(self, problems: list[tuple[tuple[str, ...], str]], source: str = "") -> None:
        self.problems = problems
        self.source = source
        super().__init__(problems)

    @classmethod
    def single(cls, text: str, *place: str) -> ConfigError:
        """Make an error of one problem."""
        return cls([(place, text)])

    def __str__(self) -> str:
        shown, rest = self.problems[:SHOWN], self.problems[SHOWN:]
        lines = [f"{'.'.join(place)}: {text}" if place else text for place, text in shown]
        lines += [f"and {len(rest)} more"] * bool(rest)
        return (f"{self.source}: " if self.source else "") + "; ".join(lines)


def one_line(text: object) -> str:
    """Return a text without line breaks."""
    return " ".join(str(text).split())


def said(error: BaseException) -> str:
    """Return the kind of somebody else's error and what it says, in one short line."""
    words = one_line(f"{type(error).__name__}: {error}").removesuffix(":")
    return words if len(words) <= LONGEST else f"{words[:LONGEST]}…"


@contextmanager
def under(key: str) -> Iterator[None]:
    """Put the problems of a ConfigError below a key."""
    try:
        yield
    except ConfigError as error:
        problems = [((key, *place), text) for place, text in error.problems]
        raise ConfigError(problems, error.source) from None


@contextmanager
def blaming(source: object) -> Iterator[None]:
    """Name the file or option that settings come from, in a ConfigError that names none yet."""
    try:
        yield
    except ConfigError as error:
        error.source = error.source or str(source)
        raise

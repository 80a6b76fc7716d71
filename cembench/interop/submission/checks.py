"""Checks of an entry: what was expected and what was found, stage by stage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from safetensors import SafetensorError

from cembench.util.errors import CembenchError, one_line, said

LONGEST = 300  # characters of a cell
Outcome = Literal["passed", "failed", "note"]


class Refused(Exception):
    """An entry cannot be accepted; the checks say why."""


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        stage: the part of the inspection that it belongs to.
        what: what was looked at.
        expected: what it should be.
        found: what it is.
        outcome: whether they agree; a note refuses nothing.
    """

    stage: str
    what: str
    expected: str
    found: str
    outcome: Outcome

    @property
    def reason(self) -> str:
        """The check in one sentence."""
        return f"{self.what}: expected {self.expected}, found {self.found}"


@dataclass
class Checks:
    """All checks of an entry so far.

    Attributes:
        hidden: the folder of the copy that is inspected, which no text repeats.
        rows: the checks.
        title: of the stage that goes on.
    """

    hidden: str = ""
    rows: list[Check] = field(default_factory=list)
    title: str = ""

    @property
    def failed(self) -> list[Check]:
        """Those that refuse the entry."""
        return [row for row in self.rows if row.outcome == "failed"]

    @property
    def notes(self) -> list[Check]:
        """Those that tell the keeper something."""
        return [row for row in self.rows if row.outcome == "note"]

    def require(self, what: str, fits: bool, expected: object, found: object) -> bool:
        """Add a check, and return whether it is passed."""
        self._add(what, expected, found, "passed" if fits else "failed")
        return fits

    def equal(self, what: str, expected: object, found: object) -> bool:
        """Add a check that two values are the same, and return whether they are."""
        return self.require(what, expected == found, expected, found)

    def fail(self, what: str, expected: object, found: object) -> None:
        """Add a check that is not passed."""
        self._add(what, expected, found, "failed")

    def note(self, what: str, expected: object, found: object) -> None:
        """Add something that the keeper should know."""
        self._add(what, expected, found, "note")

    def _add(self, what: str, expected: object, found: object, outcome: Outcome) -> None:
        told = (self._short(what), self._short(expected), self._short(found))
        self.rows.append(Check(self.title, *told, outcome=outcome))

    def _short(self, value: object) -> str:
        text = f"{value:.6g}" if isinstance(value, float) else one_line(value)
        text = text.replace(f"{self.hidden}/", "") if self.hidden else text
        return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"

    @contextmanager
    def trying(self, what: str, expected: str) -> Iterator[None]:
        """Make a failed check of an error, also of one that only odd files cause."""
        try:
            yield
        except (CembenchError, RecursionError, SafetensorError) as error:
            self.fail(what, expected, error)

    @contextmanager
    def stage(self, title: str) -> Iterator[None]:
        """Gather the checks of a stage.

        Odd files cause errors that nobody foresaw. Each is a failed check.

        Raises:
            Refused: at its end, when one of them failed.
        """
        self.title, before = title, len(self.failed)
        try:
            yield
        except (CembenchError, Refused):
            raise
        except Exception as error:
            self.fail("the entry", "one that can be read", said(error))
        if len(self.failed) > before:
            raise Refused

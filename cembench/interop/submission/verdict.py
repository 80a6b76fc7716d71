"""Verdict on an entry, and the mark by which a board shows it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cembench.interop.submission.checks import Checks
from cembench.interop.submission.entry import EntryFacts

Word = Literal["accepted", "accepted, not re-run", "refused"]


@dataclass
class Verdict:
    """What an inspection came to.

    Attributes:
        title: the name of the entry.
        checks: every check.
        facts: what the entry says of itself, if that could be read.
        outcome: the verdict.
        attacked: on how many images attacks were run again; None for none.
        how: sentences on how it was inspected: versions, seeds, shares.
    """

    title: str
    checks: Checks = field(default_factory=Checks)
    facts: EntryFacts | None = None
    outcome: Word = "refused"
    attacked: int | None = None
    how: list[str] = field(default_factory=list)

    @property
    def accepted(self) -> bool:
        """Whether the entry may be shown."""
        return self.outcome != "refused"

"""A finding: one line of what this machine can do, or lacks, and the remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from cembench.util.errors import said

State = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """What was found.

    Attributes:
        topic: what it is about.
        state: a `problem` would make cembench fail; a `note` is worth knowing.
        text: one line.
        remedy: what to do about it, if anything.
    """

    topic: str
    state: State
    text: str
    remedy: str = ""


Check = Callable[[], Iterable[Finding]]


def found_by(topic: str, check: Check) -> list[Finding]:
    """Return what a check finds; that it fails is a finding too.

    Whatever a damaged package raises when it is imported is caught.
    """
    try:
        return [*check()]
    except Exception as error:
        return [
            Finding(topic, "problem", f"cannot be told: {said(error)}", "see the findings above")
        ]

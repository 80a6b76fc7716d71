"""A finding: one line of what this machine can do, or lacks, and the remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

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
        text = " ".join(f"cannot be told: {type(error).__name__}: {error}".split())
        return [Finding(topic, "problem", text[:300], "see the findings above")]


def near(path: Path) -> Path:
    """Return a path, or the nearest folder above it that exists."""
    return next(place for place in (path, *path.absolute().parents) if place.exists())

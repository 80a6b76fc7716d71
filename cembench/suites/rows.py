"""Row of an experiment: the main figures of its record, as soon as there is one."""

from __future__ import annotations

from cembench.evaluation.record import Record
from cembench.evaluation.sections.threats import UNION
from cembench.reporting.leaderboard.ranking import ROBUST, robust_attack
from cembench.reporting.leaderboard.rows import sanity_mark
from cembench.util.display.format import with_error


def cells(record: Record) -> dict[str, str]:
    """Return figures by heading; those that the protocol does not measure are left out."""
    found, figures = {}, record.accuracies
    attack = robust_attack(figures)
    robust = ROBUST.get(attack or "", "")
    for heading, key in (("clean", "clean"), (robust, attack), (UNION, UNION)):
        if key is not None and key in figures:
            found[f"{heading} ↑"] = figures[key].text
    if record.generation is not None:
        scores = next(iter(record.generation.samplers.values())).samples
        if scores is not None:
            found["KID ↓"] = with_error(scores.kid, scores.kid_error)
    if mark := sanity_mark(" ".join(record.sanity_failed), record.unchecked):
        found["sanity"] = mark
    return found


def line(record: Record) -> str:
    """Return the same in one line."""
    parts = [f"{heading.rstrip(' ↑↓')} {text}" for heading, text in cells(record).items()]
    return ", ".join(parts) or "done"

"""Page of an inspection: the verdict first, then every check, as Markdown."""

from __future__ import annotations

import pandas as pd

from cembench.interop.submission.checks import Check
from cembench.interop.submission.verdict import Verdict
from cembench.util.display.markdown import markdown_table, markdown_text

MOST = 200  # rows of a table
MARKS = {"passed": "✓", "failed": "✗", "note": "!"}
NOT_RECOUNTED = (
    "Not recounted, since nothing in an entry shows it: how the network was trained and on what "
    "else, its method, gradients and seed, wall times and rates, warnings, and who made it."
)


def page_of(verdict: Verdict) -> str:
    """Return the page of a verdict; what the entry says is text in it, and nothing else."""
    checks, passed = verdict.checks, sum(row.outcome == "passed" for row in verdict.checks.rows)
    ended = " The inspection ended where one was not; costlier ones were not made."
    parts = [f"# {markdown_text(verdict.title)}: {verdict.outcome}", _opening(verdict)]
    parts += _list("Reasons", checks.failed)
    parts += _list("Notes", checks.notes)
    parts += [f"## Checks\n\n{passed} of {len(checks.rows)} passed.{ended * bool(checks.failed)}"]
    for stage in dict.fromkeys(row.stage for row in checks.rows):
        rows = [row for row in checks.rows if row.stage == stage]
        parts += [f"### {markdown_text(stage)}\n\n{_table(rows)}".rstrip()]
    parts += ["## How it was inspected", *verdict.how]
    parts += [NOT_RECOUNTED]
    return "\n\n".join(parts) + "\n"


def _opening(verdict: Verdict) -> str:
    facts = verdict.facts
    if facts is None:
        return "It could not be read as an entry."
    said = {"licence": facts.licence, "contact": facts.contact, "authors": facts.authors}
    said |= {"link": facts.link}
    return "\n".join(f"- {key}: {markdown_text(value)}" for key, value in said.items() if value)


def _list(title: str, rows: list[Check]) -> list[str]:
    lines = [f"- {markdown_text(row.reason)}" for row in rows[:MOST]]
    lines += [f"- and {len(rows) - MOST} more"] * (len(rows) > MOST)
    return ["\n".join([f"## {title}\n", *lines])] if rows else []


def _table(rows: list[Check]) -> str:
    cells = [[row.what, row.expected, row.found, MARKS[row.outcome]] for row in rows[:MOST]]
    return markdown_table(pd.DataFrame(cells, columns=["check", "expected", "found", ""]))

"""Outcomes for people (markdown) and for CI servers (JUnit XML)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from xml.etree import ElementTree

from cembench.evaluation.gate.gate import Outcome
from cembench.util.display.format import number, percent
from cembench.util.display.markdown import markdown_table
from cembench.util.lazy import lazy_imports

with lazy_imports():
    import pandas as pd

SHOWN = 12  # images that a line names
LOUD = ("regression", "error")
ORDER = ("regression", "error", "unchecked", "inconclusive", "pass")


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """Return 1 after a regression, else 2 where something is left to do, else 0."""
    if any(outcome.verdict == "regression" for outcome in outcomes):
        return 1
    return 0 if all(outcome.passes for outcome in outcomes) else 2


def verdict_line(outcomes: Sequence[Outcome]) -> str:
    """Return the number of outcomes per verdict in one line."""
    counts = pd.Series([outcome.verdict for outcome in outcomes]).value_counts()
    told = [f"{counts[key]} {key}" for key in ORDER if key in counts]
    return ", ".join(told)


def markdown(outcomes: Sequence[Outcome]) -> str:
    """Return a table with one row per metric, and below it the images that regressions lost."""
    lines = [
        f"{outcome.row}, {outcome.metric}: {images(outcome)}"
        for outcome in outcomes
        if outcome.verdict == "regression" and outcome.lost
    ]
    return markdown_table(pd.DataFrame(shown(outcomes))) + "".join(f"\n{line}\n" for line in lines)


def shown(outcomes: Sequence[Outcome]) -> dict[str, list[str]]:
    """Return the cells of that table by heading."""
    return {
        "checkpoint": [outcome.row for outcome in outcomes],
        "metric": [outcome.metric for outcome in outcomes],
        "baseline": [_number(outcome, outcome.was) for outcome in outcomes],
        "now": [_number(outcome, outcome.now) for outcome in outcomes],
        "difference": [outcome.note for outcome in outcomes],
        "verdict": [_word(outcome) for outcome in outcomes],
    }


def images(outcome: Outcome) -> str:
    """Name the images that were lost, and count those that were won."""
    named = ", ".join(map(str, outcome.lost[:SHOWN]))
    more = f" and {len(outcome.lost) - SHOWN} more" if len(outcome.lost) > SHOWN else ""
    return f"lost images {named}{more}; won {len(outcome.won)}"


def sentence(outcome: Outcome) -> str:
    """Return one outcome in one line."""
    was, now = _number(outcome, outcome.was), _number(outcome, outcome.now)
    lost = f"; {images(outcome)}" if outcome.lost else ""
    return f"{outcome.row} {outcome.metric}: {outcome.verdict}: {was} → {now}, {outcome.note}{lost}"


def junit(outcomes: Sequence[Outcome]) -> str:
    """Return JUnit XML: one suite per checkpoint, one case per metric."""
    root = ElementTree.Element("testsuites", name="cembench check")
    for row, group in groupby(outcomes, key=lambda outcome: outcome.row):
        cases = list(group)
        failed = sum(outcome.verdict == "regression" for outcome in cases)
        allowed = sum(outcome.allowed for outcome in cases)
        broken = sum(not outcome.passes for outcome in cases) - failed
        counts = {"tests": len(cases), "failures": failed, "errors": broken, "skipped": allowed}
        told = {"name": row, **{key: str(value) for key, value in counts.items()}}
        suite = ElementTree.SubElement(root, "testsuite", told)
        for outcome in cases:
            case = ElementTree.SubElement(suite, "testcase", classname=row, name=outcome.metric)
            if outcome.verdict != "pass":
                problem = ElementTree.SubElement(case, _kind(outcome), message=outcome.note)
                problem.text = sentence(outcome)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _kind(outcome: Outcome) -> str:
    if outcome.allowed:
        return "skipped"
    return "failure" if outcome.verdict == "regression" else "error"


def _word(outcome: Outcome) -> str:
    return outcome.verdict.upper() if outcome.verdict in LOUD else outcome.verdict


def _number(outcome: Outcome, value: float | None) -> str:
    return number(value) if outcome.p_value is None else percent(value)

"""Checks for gradient masking: ways in which measured robustness can be an illusion."""

from __future__ import annotations

from typing import Literal

from cembench.evaluation.diff import Comparison, compared
from cembench.evaluation.section import Section
from cembench.util.display.charts import Cell, Table
from cembench.util.display.format import number
from cembench.util.settings import Count, Settings

ALWAYS = (  # the checks that are made whether a protocol asks for any or not
    "answers_change_between_calls",
    "answers_depend_on_batch",
    "wrong_gradients",
    "black_box_beats_white_box",
)


class SanityConfig(Settings):
    """Settings of the gradient-masking checks (`sanity` in a protocol).

    Attributes:
        images: number of the attacked images that are checked.
        steps: gradients of PGD; five times as many where more of them should not help.
        queries: forward passes of Square per image; a twentieth of them on images that it is far
            from a success on.
    """

    images: Count = 128
    steps: Count = 20
    queries: Count = 1000


class SanityCheck(Settings):
    """One check, for one way in which robustness can be an illusion.

    Attributes:
        name: the problem that the check looks for.
        verdict: `skipped` where it does not apply.
        figure: the measured value, as `meaning` says.
        meaning: what the figure is, the value from which the check fails, and what that implies.
    """

    name: str
    verdict: Literal["pass", "fail", "skipped"]
    figure: float | None
    meaning: str


class SanitySection(Section[SanityConfig | None, list[SanityCheck]]):
    """Nine checks with attacks of their own, where a protocol asks for them; four in any case."""

    key = "sanity"
    setting = (SanityConfig | None, None)
    result_key = "sanity"
    result = (list[SanityCheck], [])
    always = True

    def compare(self, recorded: list[SanityCheck], again: list[SanityCheck]) -> list[Comparison]:
        """Compare the checks of a record, which may be of a version that had fewer."""
        known = {check.name for check in recorded}
        found = [check for check in again if check.name in known]
        return compared(self.result_key, recorded, found)

    def details(self, result: list[SanityCheck]) -> list[Table]:
        """Return the table of checks, one row per check."""
        rows = [
            [
                Cell(check.name),
                Cell(check.verdict, mark="error" if check.verdict == "fail" else ""),
                Cell.of(check.figure, number(check.figure)),
                Cell(check.meaning),
            ]
            for check in result
        ]
        head = ["check", "verdict", "value", "meaning"]
        return [Table("Sanity checks", head, rows)] if rows else []

"""Figures of an entry, computed again from its evidence, perhaps on another kind of machine.

`cembench verify` asks for the same figures but for rounding. Here gradient loops run again on
another device or CPU, where they end elsewhere, so differences that are small are only told.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from cembench.evaluation.context import EvaluationContext
from cembench.evaluation.diff import Comparison
from cembench.evaluation.verify import comparable, recounted
from cembench.interop.submission.checks import Checks
from cembench.interop.submission.claim import Claim

NEAR = 0.02  # relative and absolute: figures of gradient loops that ran again
SCORES = 1e-3  # relative: figures of saved samples, which are passed on as they are
MOST = 0.05  # share of images whose values of gradient loops may differ by more
FLIPPED = 0.005  # share of images whose verdicts may differ, since they lie on the edge
EVIDENCE = ("clean_pred", "clean_8bit_pred", "_broken", "_broken_8bit", "_outside")

RULE = (
    "Figures were computed again from the saved images and samples. Where the machine rounds "
    f"otherwise, verdicts on saved images may differ on {FLIPPED:.1%} of the images, or one; "
    f"scores of saved samples by a relative {SCORES:g}; and what gradient loops find that run "
    f"again (sanity checks, curve, energies under attack) by {NEAR:.0%} or {NEAR:g}, on all images "
    f"but {MOST:.0%}. Every difference is a note."
)


def recount(claim: Claim, context: EvaluationContext, checks: Checks) -> None:
    """Compute every figure from the saved images and samples; see `RULE`.

    Raises:
        Refused: when one differs.
    """
    with checks.stage("Figures"), checks.trying("figures", "those of the evidence"):
        rows, table = recounted(context, claim.record, claim.path)
        for row in rows:
            _compare(row, len(context.split), checks)
        if claim.record.kind == "classifier":
            _compare_tables(claim.table, table, checks)


def _compare(row: Comparison, images: int, checks: Checks) -> None:
    total = row.figure.endswith(": values that agree")
    if row.agrees:
        checks.require(row.figure, True, row.again, row.recorded)
    elif total or _near(row, images):
        checks.note(row.figure, row.again, row.recorded)
    else:
        checks.fail(row.figure, row.again, row.recorded)


def _near(row: Comparison, images: int) -> bool:
    """Return whether two values may come from the same evidence on two machines."""
    old, new = row.recorded, row.again
    numbers = all(isinstance(x, int | float) and not isinstance(x, bool) for x in (old, new))
    if not numbers or row.figure.startswith("run: "):
        return False
    assert isinstance(old, int | float) and isinstance(new, int | float)
    if row.figure.startswith("samples") and not row.figure.endswith("as their logits say"):
        return isinstance(old, float) and math.isclose(old, new, rel_tol=SCORES)
    if isinstance(old, int) and isinstance(new, int):
        share = NEAR if ": " in row.figure else FLIPPED
        return abs(old - new) <= max(1, share * images)
    return math.isclose(old, new, rel_tol=NEAR, abs_tol=NEAR)


def _compare_tables(recorded: pd.DataFrame, again: pd.DataFrame, checks: Checks) -> None:
    """Compare tables column by column, but for the stages, which are not run again."""
    columns = comparable(recorded, again)
    absent = [column for column in columns if column not in recorded]
    if not checks.equal("columns that the table lacks", "none", ", ".join(absent) or "none"):
        return
    more = ", ".join(str(column) for column in recorded if column not in again)
    if more:
        checks.note("columns that are not computed again", "none", more)
    for column in columns:
        same = _same(recorded[column], again[column])
        few = max(1, FLIPPED * len(same)) if column.endswith(EVIDENCE) else MOST * len(same)
        differing = int((~same).sum())
        if differing:
            tell = checks.note if differing <= few else checks.fail
            tell(f"column {column}", "that of the evidence", f"{differing} images differ")
    checks.require("images in the table", len(recorded) == len(again), len(again), len(recorded))


def _same(old: pd.Series, new: pd.Series) -> np.ndarray:
    if new.dtype.kind == "f" and old.dtype.kind == "f":
        return np.isclose(old, new, rtol=NEAR, atol=NEAR, equal_nan=True)
    return (old == new).to_numpy()

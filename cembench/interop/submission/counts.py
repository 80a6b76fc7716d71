"""Counts of an entry: table, images and figures against each other, and against the keeper's data.

No network is run.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from torch import Tensor

from cembench.attacks import Attack
from cembench.data.split import Split, subset
from cembench.evaluation.measures.counts import count
from cembench.interop.submission.checks import Checks
from cembench.interop.submission.claim import Claim
from cembench.interop.submission.images import check_images

COUNTED = ("correct", "correct_8bit", "images", "low", "high", "outside", "untried", "at_risk")
CLEAN = ("index", "label", "clean_pred", "clean_8bit_pred")
VERDICTS = ("_broken", "_broken_8bit", "_outside")


def check_table(claim: Claim, checks: Checks) -> None:
    """Count the table of an entry, and compare figures and intervals; it needs no images.

    Raises:
        Refused: when they do not fit together.
    """
    if claim.record.kind != "classifier":
        return
    table = claim.table
    with checks.stage("Table"):
        wrong = _wrong_columns(table)
        if not checks.require("columns", not wrong, "numbers and verdicts", wrong or "so they are"):
            return
        index = table["index"].tolist()
        checks.equal("rows that are there twice", 0, len(index) - len(set(index)))
        _check_figures(claim, checks)


def check_images_of(claim: Claim, whole: Split, checks: Checks) -> None:
    """Compare an entry with the test split of the keeper.

    Args:
        claim: what the entry claims, with a table that `check_table` passed.
        whole: that split.
        checks: where the findings go.

    Raises:
        Refused: when rows, labels or adversarial images are not of these images.
    """
    split, rows = subset(whole, claim.protocol.limit)
    with checks.stage("Images"):
        own, said = split.fingerprint, claim.record.fingerprint
        checks.equal("fingerprint of the attacked images", own, said)
        if claim.record.kind != "classifier" or not _rows_fit(claim.table, split, rows, checks):
            return
        with checks.trying("adversarial images", "undamaged, of these images"):
            for run in claim.protocol.runs:
                check_images(claim, run, split, rows, checks)


def _rows_fit(table: pd.DataFrame, split: Split, rows: Tensor, checks: Checks) -> bool:
    """Check that the table has one row for each image of the protocol, in order."""
    index = table["index"].to_numpy()
    checks.equal("rows of the table", len(rows), len(table))
    if not np.array_equal(index, rows.numpy()):
        missing = len(set(rows.tolist()) - set(index.tolist()))
        checks.fail("images of the protocol", "each of them, in order", f"{missing} missing")
        return False
    other = int((table["label"].to_numpy() != split.labels.numpy()).sum())
    checks.equal("labels that are not those of the images", 0, other)
    return True


def _wrong_columns(table: pd.DataFrame) -> str:
    """Return the columns that are missing or of another type than verdicts have."""
    kinds = {str(name): table[name].dtype.kind for name in table}
    wrong = [name for name in CLEAN if kinds.get(name) != "i"]
    wrong += [name for name, kind in kinds.items() if name.endswith(VERDICTS) and kind != "b"]
    return ", ".join(wrong)


def _check_figures(claim: Claim, checks: Checks) -> None:
    """Count the table, and compare accuracies and intervals."""
    table, recorded = claim.table, claim.record.figures
    titles = [a.title for a in claim.protocol.attacks if _has_verdicts(table, a)]
    asked = [a.title for a in claim.protocol.attacks if a.minimises in (None, _norm(claim))]
    absent = [t for t in asked if t not in titles and t not in claim.record.not_applicable]
    checks.require("attacks in the table", not absent, "all of the protocol", _named(absent))
    counted = count(table, titles, {})
    checks.equal("figures", ", ".join(counted), ", ".join(recorded))
    for name, figure in counted.items():
        if name in recorded:
            old, new = ({k: getattr(one, k) for k in COUNTED} for one in (recorded[name], figure))
            fits = all(np.isclose(old[k], new[k], rtol=1e-6) for k in COUNTED)
            apart = {k: (new[k], old[k]) for k in COUNTED if not np.isclose(old[k], new[k])}
            expected = _cells(apart, 0) or f"{figure.correct} of {figure.images}"
            found = _cells(apart, 1) or f"{figure.correct} of {figure.images}"
            checks.require(f"figure {name}", fits, expected, found)


def _has_verdicts(table: pd.DataFrame, attack: Attack) -> bool:
    columns = [f"{attack.title}_{end}" for end in ("broken", "broken_8bit", "by")]
    return all(column in table for column in columns)


def _norm(claim: Claim) -> str:
    return claim.record.threat.norm


def _named(titles: Sequence[str]) -> str:
    return f"none of {', '.join(titles)}" if titles else "all of the protocol"


def _cells(apart: dict[str, tuple[float, float]], place: int) -> str:
    return ", ".join(f"{key} {pair[place]:.6g}" for key, pair in apart.items())

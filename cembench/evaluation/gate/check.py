"""Check of checkpoints: each is measured as its row of a baseline was, and compared with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cembench.evaluation.compare import right_of
from cembench.evaluation.gate.baseline import Baseline, load_baseline
from cembench.evaluation.gate.conditions import require_protocol, require_software
from cembench.evaluation.gate.evaluator import Evaluator, named
from cembench.evaluation.gate.gate import SANITY, Measured, Outcome, judge
from cembench.evaluation.gate.verdicts import load_verdicts
from cembench.util.errors import CembenchError
from cembench.util.lazy import lazy_imports
from cembench.util.settings import nearest

with lazy_imports():
    import pandas as pd


def check(
    checkpoints: Sequence[str],
    path: Path,
    evaluator: Evaluator,
    *,
    allow_changed_software: bool = False,
    allow_unchecked: bool = False,
) -> list[Outcome]:
    """Evaluate checkpoints under the protocol of a baseline and compare each figure with it.

    What can be refused is refused before anything is evaluated.

    Args:
        checkpoints: `FILE`, `FOLDER` or `NAME=FILE`; all those of the baseline unless given. What
            they are compared with is the row of their name.
        path: the file of the baseline.
        evaluator: how and where.
        allow_changed_software: compare also when rows were measured with other versions.
        allow_unchecked: let rows pass without sanity checks.

    Raises:
        CembenchError: when a row or a checkpoint is missing or cannot be evaluated, or when
            protocol, images or software are not those that a row was measured under.
    """
    baseline = load_baseline(path)
    files = named(checkpoints, path, baseline)
    for name in files:
        if name not in baseline.rows:
            hint = nearest(name, baseline.rows)
            raise CembenchError(f"{path}: no row '{name}'; {hint}; or give NAME=CHECKPOINT")
    before = {name: _verdicts(path, baseline, name) for name in files}
    for name in files if not allow_changed_software else ():
        require_software(path, baseline, name)
    found = {
        name: Measured(
            baseline.rows[name],
            before[name],
            *evaluator.measure(name, file, baseline.protocol),
        )
        for name, file in files.items()
    }
    return judge(baseline, found, allow_unchecked)


def figures_of(path: Path) -> dict[str, list[str]]:
    """Return the figures that `check` compares, by row, without evaluating anything.

    Raises:
        CembenchError: when the baseline or its verdicts cannot be used.
    """
    baseline = load_baseline(path)
    return {
        name: [*right_of(_verdicts(path, baseline, name)), *row.metrics, SANITY]
        for name, row in baseline.rows.items()
    }


def _verdicts(path: Path, baseline: Baseline, name: str) -> pd.DataFrame:
    require_protocol(path, baseline, name)
    return load_verdicts(path, baseline, name)

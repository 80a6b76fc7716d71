"""The ranking rule: which accuracy is the robust one, the order of rows, the Pareto front.

Networks are ranked by accuracy under AutoAttack; where the official one was not run, by that under
our own code for it, on all survivors or on a sample of them; where none was, by the worst case over
all attacks. Samplers are ranked by KID.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable

import pandas as pd

from cembench.evaluation.record import Record
from cembench.util.display.column import Column

ROBUST = {  # the first one measured counts
    "autoattack": "AutoAttack",
    "autoattack-fast": "AutoAttack (fast)",
    "autoattack-sampled": "AutoAttack (sampled)",
    "worst_case": "worst-case",
}
ORDER = [*(f"{attack}_acc" for attack in ROBUST), "clean_acc"]
DISTANCE = "kid"


def robust_attack(measured: Container[str]) -> str | None:
    """Return the attack whose accuracy is the robust accuracy; None where none was run."""
    return next((attack for attack in ROBUST if attack in measured), None)


def best_first(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Sort networks by robust accuracy; equal ones by clean accuracy, then by the column `name`."""
    order = [column for column in ORDER if column in table]
    return table.sort_values([*order, name], ascending=[False] * len(order) + [True])


def nearest_first(table: pd.DataFrame) -> pd.DataFrame:
    """Sort samplers by their distance from real images."""
    return table.sort_values([DISTANCE, "run", "sampler"])


def lead_column(records: Iterable[Record]) -> Column | None:
    """Return the column by which samples rank: KID of the first sampler of the first record.

    Records without samples have none; where no record has any, None is returned.
    """
    for record in records:
        if (generation := record.generation) is not None and generation.samplers:
            title = next(iter(generation.samplers))
            return Column(title, generation.extractor, generation.count, DISTANCE)
    return None


def pareto_front(table: pd.DataFrame, lead: Column) -> pd.Series:
    """Return which rows are on the Pareto front of robust accuracy and the lead sampler's KID."""
    robust = table[[column for column in ORDER[:-1] if column in table]].astype(float)
    return pareto(robust.bfill(axis=1).iloc[:, 0], table[lead.name].astype(float))


def pareto(robust: pd.Series, distance: pd.Series) -> pd.Series:
    """Return which rows no other beats: none is at least as good on both axes and better on one.

    Args:
        robust: accuracies, higher is better.
        distance: of samples from real images, lower is better.

    Returns:
        True, False, or None for rows that lack one of the two.
    """
    known = robust.notna() & distance.notna()
    near = distance[known]
    least = near.groupby(robust[known]).min().sort_index(ascending=False)
    above = least.cummin().shift(fill_value=math.inf)  # the least at any higher accuracy
    alike, higher = (robust[known].map(found) for found in (least, above))
    front = dict(zip(near.index, ((near <= alike) & (near < higher)).tolist(), strict=True))
    return pd.Series([front.get(row) for row in robust.index], robust.index, dtype="object")


def evidence(record: Record) -> int:
    """Return on how many images AutoAttack was run, in full: the official one, or our own code.

    Without a gradient it is never run in full.
    """
    if record.no_gradient:
        return 0
    found = (record.figures.get(attack) for attack in ("autoattack", "autoattack-fast"))
    return next((figure.images for figure in found if figure is not None), 0)

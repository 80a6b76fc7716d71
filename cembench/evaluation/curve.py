"""Robust accuracy at other radii: every image is attacked at rising ε until something breaks it."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import torch
from torch import Tensor

from cembench.attacks import Target
from cembench.evaluation.attack_stages import Chunk, Stage, run_stages, stages_of
from cembench.evaluation.results import CurvePoint, rate
from cembench.evaluation.sections import CurveConfig
from cembench.util.progress import Bar

TITLE = "curve"


def breaking_radius(
    target: Target, chunk: Chunk, known: Tensor, plan: CurveConfig, bar: Bar
) -> Tensor:
    """Return the smallest radius of the plan at which each image is broken, NaN for none.

    What is broken at one radius is broken at all larger ones, and is not attacked again there.

    Args:
        target: the network, with the threat model whose norm and ε the radii belong to.
        chunk: N images.
        known: the size of the smallest perturbation already known to break each image: 0 where it
            is misclassified as it is, infinity where none is known.
        plan: radii and attack.
        bar: told of progress.
    """
    tolerance = target.threat.ball.tolerance
    radii = torch.tensor(plan.radii(target.threat.eps), dtype=torch.float64)
    known = known.double().cpu()
    stages: list[Stage] = []
    for eps in radii.tolist():
        there = replace(target, threat=target.threat.model_copy(update={"eps": eps}))
        alive = (known > eps + tolerance).to(chunk.split.labels.device)
        for stage in stages_of(plan.attack, there, alive):
            stages.append(replace(stage, name=f"{stage.name} at {eps:.4g}"))
    standing = run_stages(TITLE, stages, chunk, bar)
    reached = torch.full((len(known),), torch.nan, dtype=torch.float64)
    for eps in radii.tolist():
        reached[reached.isnan() & (known <= eps + tolerance)] = eps
    reached[known == 0] = 0
    won = standing.by.cpu() >= 0
    by = [stages[number].target.threat.eps for number in standing.by[won].tolist()]
    found = torch.tensor(by, dtype=torch.float64)
    reached[won] = torch.fmin(reached[won], found)
    return reached


def points(table: pd.DataFrame, radii: list[float]) -> list[CurvePoint]:
    """Count the images that stand at each radius, and at none, from `curve_eps` of the table."""
    broken = table["curve_eps"].astype(float).fillna(float("inf"))
    return [CurvePoint(eps=eps, **rate(broken > eps).dump()) for eps in [0.0, *radii]]

"""Robust accuracy at other radii: every image is attacked at rising ε until something breaks it."""

from __future__ import annotations

import io
from dataclasses import replace

import pandas as pd
import torch
from torch import Tensor

from cembench.evaluation.attacks import Target
from cembench.evaluation.figures import CurvePoint, rate
from cembench.evaluation.plans import CurvePlan
from cembench.evaluation.stages import Chunk, Stage, run_stages, stages_of
from cembench.evaluation.verify import TOLERANCE
from cembench.progress import Bar

TITLE = "curve"


def breaking_radius(
    target: Target, chunk: Chunk, known: Tensor, plan: CurvePlan, bar: Bar
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
    radii = torch.tensor(plan.radii(target.threat.eps), dtype=torch.float64)
    known = known.double().cpu()
    stages: list[Stage] = []
    for eps in radii.tolist():
        there = replace(target, threat=target.threat.model_copy(update={"eps": eps}))
        alive = (known > eps + TOLERANCE).to(chunk.split.labels.device)
        for stage in stages_of(plan.attack, there, alive):
            stages.append(replace(stage, name=f"{stage.name} at {eps:.4g}"))
    standing = run_stages(TITLE, stages, chunk, bar)
    reached = torch.full((len(known),), torch.nan, dtype=torch.float64)
    for eps in radii.tolist():
        reached[reached.isnan() & (known <= eps + TOLERANCE)] = eps
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


def picture(curve: list[CurvePoint], title: str, eps: float) -> bytes:
    """Draw a curve with its 95 % band and the radius of the threat model, as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axes = figure.subplots()
    radii = [point.eps for point in curve]
    axes.plot(radii, [100 * point.accuracy for point in curve], marker="o")
    low, high = ([100 * getattr(point, end) for point in curve] for end in ("low", "high"))
    axes.fill_between(radii, low, high, alpha=0.2, label="95 % Wilson interval")
    axes.axvline(eps, linestyle=":", color="grey", label=f"ε of the threat model, {eps:.4g}")
    axes.set(xlabel="ε", ylabel="accuracy under attack, %", title=title, ylim=(0, 101))
    axes.set_xlim(left=0)
    axes.legend(fontsize="small")
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=150, metadata={"Software": None})
    return stream.getvalue()

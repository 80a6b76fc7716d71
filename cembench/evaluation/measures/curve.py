"""Robust accuracy at other radii: every image is attacked at rising ε until an attack succeeds."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from cembench.evaluation.chunk import Chunk, Columns
from cembench.evaluation.measure import Measurement
from cembench.evaluation.measures.robustness import Stage, run_stages, stages_of
from cembench.evaluation.sections.curve import TITLE, CurveConfig, CurvePoint, points
from cembench.evaluation.target import applies, not_applicable


def chunk_columns(config: CurveConfig, chunk: Chunk) -> Columns:
    """Return `curve_eps`, the smallest radius at which an attack succeeds on each image.

    It is 0 for an image that is misclassified without attack, and NaN where every radius fails.
    Under another threat model than the record's, its name begins with that of the threat model.
    What succeeds at one radius is in all larger balls, so the image is not attacked again there.
    There is no column where the attack does not apply.
    """
    target = chunk.target
    if not applies(config.attack, target):
        return {}
    tolerance = target.threat.ball.tolerance
    radii = torch.tensor(config.radii(target.threat.eps), dtype=torch.float64)
    known = smallest(chunk).double().cpu()
    stages: list[Stage] = []
    for eps in radii.tolist():
        there = replace(target, threat=target.threat.model_copy(update={"eps": eps}))
        alive = (known > eps + tolerance).to(chunk.split.labels.device)
        for stage in stages_of(config.attack, there, alive):
            stages.append(replace(stage, name=f"{stage.name} at {eps:.4g}"))
    title = chunk.title(TITLE)
    progress = run_stages(title, stages, chunk)
    reached = torch.full((len(known),), torch.nan, dtype=torch.float64)
    for eps in radii.tolist():
        reached[reached.isnan() & (known <= eps + tolerance)] = eps
    reached[known == 0] = 0
    won = progress.by.cpu() >= 0
    by = [stages[number].target.threat.eps for number in progress.by[won].tolist()]
    found = torch.tensor(by, dtype=torch.float64)
    reached[won] = torch.fmin(reached[won], found)
    return {f"{title}_eps": reached}


def smallest(chunk: Chunk) -> Tensor:
    """Return the size of the smallest known perturbation that succeeds on each image.

    It is 0 for an image that is misclassified without attack, and infinity where none is known.
    """
    known = torch.where(chunk.correct, torch.inf, 0.0)
    for attack in chunk.protocol.attacks:
        title = chunk.title(attack.title)
        ends = ("_norm", "_size") if attack.minimises == chunk.target.threat.norm else ("_norm",)
        for end in ends:
            if (norms := chunk.columns.get(f"{title}{end}")) is not None:
                known = torch.fmin(known, torch.as_tensor(norms))
    return known


def measure(config: CurveConfig, measurement: Measurement) -> list[CurvePoint]:
    """Count the images that survive each radius; no radius where the attack does not apply."""
    missing = not_applicable(config.attack, measurement.target)
    title = measurement.title(TITLE)
    measurement.not_applicable += [f"{title} {stage}" for stage in missing]
    if config.attack.minimises not in (None, measurement.target.threat.norm):
        told = f"{title}: {config.attack.title} minimises {config.attack.minimises}"
        measurement.warnings.update([f"{told}; the curve says little of robustness"])
    if not applies(config.attack, measurement.target):
        return []
    return points(measurement.table, config.radii(measurement.target.threat.eps), title)

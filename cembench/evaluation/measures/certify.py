"""Certified accuracy: images in whose ball the margins of their class are positive."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from cembench.energy.threat import Threat
from cembench.evaluation.chunk import Chunk, Columns
from cembench.evaluation.measure import Measurement
from cembench.evaluation.measures.linear_bounds import Chain
from cembench.evaluation.sections.certify import Certified, CertifyConfig
from cembench.evaluation.sections.curve import CurvePoint
from cembench.evaluation.statistics import rate
from cembench.util.errors import ModelError

COLUMN = "certified_eps"


def chunk_columns(config: CertifyConfig, chunk: Chunk) -> Columns:
    """Return `certified_eps`, the largest radius at which each image is certified; 0 for none.

    It is NaN for images that are misclassified or not tried. There is no column where the network
    has no bounds.
    """
    network, threat = chunk.target.plain.model, chunk.target.threat
    try:
        chain = _chain(network, threat, chunk.split.shape)
    except ModelError:
        return {}
    make = partial(_radii, config, chunk, chain)
    kept = f"certify.{chunk.start}"
    return {**(make() if chunk.cache is None else chunk.cache.obtain(kept, make))}


def _chain(network: nn.Module, threat: Threat, shape: tuple[int, int, int]) -> Chain:
    if not threat.ball.convex:
        raise ModelError(f"no certified bounds: there are none in {threat.norm}")
    return Chain.of(network, shape)


def _radii(config: CertifyConfig, chunk: Chunk, chain: Chain) -> dict[str, Tensor]:
    found = torch.full((len(chunk.rows),), torch.nan, dtype=torch.float64)
    tried = torch.arange(len(found)) < config.images - chunk.start
    for row in (chunk.correct.cpu() & tried).nonzero().flatten().tolist():
        chunk.bar.advance(0, "certify")
        x, label = chunk.split.pixels(torch.tensor([row]))[0], int(chunk.split.labels[row])
        found[row] = _radius(config, chain, x, label, chunk.target.threat)
    return {COLUMN: found}


def _radius(config: CertifyConfig, chain: Chain, x: Tensor, label: int, threat: Threat) -> float:
    """Return the largest radius before the first at which an image is not certified."""
    certified = 0.0
    for factor in config.factors:
        eps = factor * threat.eps
        ball = threat.model_copy(update={"eps": eps}).ball
        margins = chain.margins(x, label, ball)
        margins[label] = torch.inf
        if not bool(margins.min() > 0):
            break
        certified = eps
    return certified


def measure(config: CertifyConfig, measurement: Measurement) -> Certified | None:
    """Count the images that are certified at each radius."""
    table, threat = measurement.table[: config.images], measurement.context.header.threat
    if COLUMN not in table:
        try:
            _chain(measurement.target.plain.model, threat, measurement.context.split.shape)
        except ModelError as error:
            measurement.warnings.update([str(error)])
        return None
    reached = table[COLUMN].fillna(-1.0)
    radii = [factor * threat.eps for factor in config.factors]
    points = [CurvePoint(eps=eps, **rate(reached >= eps).dump()) for eps in radii]
    broken = [f"{attack.title}_broken" for attack in measurement.context.protocol.attacks]
    known = [column for column in broken if column in table]
    survived = (table["clean_pred"] == table["label"]) & ~table[known].any(axis=1)
    return Certified(points=points, worst_case=rate(survived) if known else None)

"""Out-of-distribution images: what the network says of them, attacked or not."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial

import pandas as pd
import torch
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor, nn

from cembench import energy
from cembench.attacks import Target
from cembench.data import DataSettings
from cembench.data.resize import resized
from cembench.data.split import subset
from cembench.energy import potentials
from cembench.energy.ascent import Visit, ascend, gradient_of, usual_step
from cembench.energy.potentials import Potential
from cembench.energy.threat import Threat
from cembench.evaluation.measure import Measurement
from cembench.evaluation.sections.density_results import OODScores
from cembench.util.errors import ModelError
from cembench.util.files import digest
from cembench.util.rng import derive, generator_of

SCORES = {"lse": "log_px", "confidence": "max_softmax", "slope": "slope"}


def read_outside(
    settings: str | DataSettings, measurement: Measurement, steps: int
) -> tuple[str, pd.DataFrame]:
    """Return the SHA-256 of out-of-distribution images, as many as are attacked, and scores.

    With `steps` of PGD, `attacked_X` are those of `attacked_scores`; none for 0. Both are kept in
    the cache, if there is one.
    """
    cache, name = measurement.context.cache, digest(title_of(settings))
    make = partial(_read_outside, settings, measurement, steps)
    values = dict(make() if cache is None else cache.obtain(f"outside.{name}", make))
    sha = bytes(values.pop("sha256").tolist()).hex()
    return sha, pd.DataFrame({key: value.numpy() for key, value in values.items()})


def title_of(settings: str | DataSettings) -> str:
    """Return what out-of-distribution images are called in records."""
    return settings if isinstance(settings, str) else settings.title


def _read_outside(
    settings: str | DataSettings, measurement: Measurement, steps: int
) -> dict[str, Tensor]:
    context, target = measurement.context, measurement.target
    count, shape, seed = len(context.split), list(context.split.shape), context.protocol.seed
    size, sha, parts = context.protocol.batch_size, hashlib.sha256(), []
    if isinstance(settings, str):
        generator = generator_of(derive(seed, "noise"), "cpu")
        rows = torch.arange(count).split(size)
        batches = (torch.rand(len(part), *shape, generator=generator) for part in rows)
    else:
        others = resized(subset(settings.load("test"), count)[0], shape)
        batches = (others.pixels(part) for part in others.parts(size))
    for batch in batches:
        sha.update(batch.numpy().data)
        x = batch.to(context.split.device)
        _, scores = scores_of(target, x)
        attacked = attacked_scores(target, x, steps) if steps else {}
        parts.append(scores | {f"attacked_{key}": value for key, value in attacked.items()})
    target.require_finite(f"on {title_of(settings)}")
    joined = {key: torch.cat([part[key] for part in parts]).cpu() for key in parts[0]}
    return joined | {"sha256": torch.tensor(list(sha.digest()), dtype=torch.uint8)}


def scores_of(target: Target, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Return logits, and `lse`, `confidence` (max-softmax) and `slope` (−‖∇ₓ LSE‖), N values each.

    There is no slope where the network has no gradient.

    Raises:
        ModelError: when a gradient is not finite.
    """
    wanted = not target.no_gradient
    x = x.detach().requires_grad_(wanted)
    with torch.set_grad_enabled(wanted):
        out = target.plain(x)
        lse = energy.marginal(out)
        slope = {"slope": -_lengths(gradient_of(lse, x))} if wanted else {}
    out = out.detach()
    return out, {"lse": lse.detach(), "confidence": max_softmax(out), **slope}


def max_softmax(out: Tensor) -> Tensor:
    """Return max_k p(k|x) for N×K logits."""
    return out.softmax(1).amax(1)


def _lengths(gradient: Tensor) -> Tensor:
    found = gradient.flatten(1).norm(dim=1)
    if not bool(found.isfinite().all()):  # squares overflow float32
        found = gradient.flatten(1).double().norm(dim=1)
    if not bool(found.isfinite().all()):
        raise ModelError("the gradient of log p(x) of the model is not finite")
    return found


def attacked_scores(target: Target, x: Tensor, steps: int) -> dict[str, Tensor]:
    """Return the highest `lse` and `confidence` that PGD reaches in the ball, N values each.

    Each score has a PGD of its own, from the image itself, so none is lower than without attack.
    """
    climbs = {
        "lse": (energy.marginal, potentials.marginal),
        "confidence": (max_softmax, potentials.confidence),
    }
    return {key: _highest(target, x, steps, *climb) for key, climb in climbs.items()}


def _highest(
    target: Target, x: Tensor, steps: int, score: Callable[[Tensor], Tensor], potential: Potential
) -> Tensor:
    seen: list[Tensor] = []

    def visit(step: int, rows: Tensor, at: Tensor, out: Tensor) -> None:
        seen.append(score(out))

    y = torch.zeros(len(x), dtype=torch.long, device=x.device)  # neither potential has a target
    climb(target.plain, potential, x, y, x, target.threat, steps, visit)
    return torch.stack(seen).amax(0)


def climb(
    model: nn.Module,
    potential: Potential,
    start: Tensor,
    y: Tensor,
    centre: Tensor,
    threat: Threat,
    steps: int,
    visit: Visit | None = None,
) -> Tensor:
    """Return the last iterates of PGD in the balls around `centre`."""
    ball = threat.ball
    return ascend(
        model,
        potential,
        start,
        y,
        steps=steps,
        step_size=usual_step(threat.eps, steps),
        direction=ball.direction,
        ball=ball,
        centre=centre,
        visit=visit,
    )


def separations(table: pd.DataFrame, others: pd.DataFrame, before: str) -> dict[str, OODScores]:
    """Return how well each score of `others` whose column begins so tells test images apart."""
    return {
        label: ood_scores(table[f"clean_{key}"], others[f"{before}{key}"])
        for key, label in SCORES.items()
        if f"{before}{key}" in others
    }


def ood_scores(inside: pd.Series, outside: pd.Series) -> OODScores:
    """Return how well a score that is higher inside tells the two apart."""
    truth = [1] * len(inside) + [0] * len(outside)
    scores = pd.concat([inside, outside])
    false, true, _ = roc_curve(truth, scores, drop_intermediate=False)
    return OODScores(
        others=len(outside),
        auroc=float(roc_auc_score(truth, scores)),
        fpr95=float(false[true >= 0.95].min()),
    )

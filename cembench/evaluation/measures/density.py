"""The network as a density: calibration, energies, out-of-distribution scores, PGD against TA."""

from __future__ import annotations

import hashlib

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
from cembench.energy.ascent import ascend, gradient_of
from cembench.energy.threat import Threat
from cembench.evaluation.measure import Chunk, Columns, Measurement
from cembench.evaluation.sections.density import DensityConfig
from cembench.evaluation.sections.density_results import (
    Bin,
    Calibration,
    Density,
    EnergyShift,
    OODScores,
)
from cembench.evaluation.sections.samples import Generation
from cembench.evaluation.statistics import MeanStd, mean_std, rate, widened
from cembench.util.errors import ModelError
from cembench.util.rng import derive, generator_of

SCORES = {"lse": "log_px", "confidence": "max_softmax", "slope": "slope"}


def chunk_columns(config: DensityConfig, chunk: Chunk) -> Columns:
    """Return what the network says of p(x) on a chunk, one value per image.

    `clean_lse`, `clean_confidence` and `clean_slope` as `scores_of` has them; and for `pgd` and
    `ta` inside the ball, `X_ball_pred` and `X_ball_lse`. Without a gradient there are neither
    slopes nor pushed images.
    """
    seed = derive(chunk.protocol.seed, "density", int(chunk.rows[0]))
    x, y, target = chunk.split.pixels(), chunk.split.labels, chunk.target
    model = target.plain
    columns: Columns = {f"clean_{key}": value for key, value in scores_of(target, x).items()}
    pushed = {} if target.no_gradient else push(model, x, y, target.threat, config.steps, seed)
    for name, moved in pushed.items():
        with torch.no_grad():
            out = model(moved)
        columns |= {f"{name}_ball_pred": out.argmax(1), f"{name}_ball_lse": energy.marginal(out)}
    model.require_finite("in the ball")
    return columns


def push(
    model: nn.Module, x: Tensor, y: Tensor, threat: Threat, steps: int, seed: int
) -> dict[str, Tensor]:
    """Return the last iterates of `pgd` and `ta` from one uniform start in the ball."""
    ball = threat.ball
    generator = generator_of(seed, x.device)
    start = ball.uniform(x, generator)
    with torch.no_grad():
        classes = model(x[:1]).shape[1]
    shift = torch.randint(1, classes, y.shape, generator=generator, device=y.device)
    climbs = {
        "pgd": (potentials.cross_entropy, y),
        "ta": (potentials.conditional, (y + shift) % classes),
    }
    return {
        name: ascend(
            model,
            potential,
            start,
            target,
            steps=steps,
            step_size=2.5 * threat.eps / steps,
            direction=ball.direction,
            ball=ball,
            centre=x,
        )
        for name, (potential, target) in climbs.items()
    }


def scores_of(target: Target, x: Tensor) -> dict[str, Tensor]:
    """Return `lse`, `confidence` (max-softmax) and `slope` (−‖∇ₓ LSE‖), N values each.

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
    confidence = out.detach().softmax(1).amax(1)
    return {"lse": lse.detach(), "confidence": confidence, **slope}


def _lengths(gradient: Tensor) -> Tensor:
    found = gradient.flatten(1).norm(dim=1)
    if not bool(found.isfinite().all()):  # squares overflow float32
        found = gradient.flatten(1).double().norm(dim=1)
    if not bool(found.isfinite().all()):
        raise ModelError("the gradient of log p(x) of the model is not finite")
    return found


def measure(config: DensityConfig, measurement: Measurement) -> Density:
    """Summarise the columns of the table, and score as many out-of-distribution images.

    Energies of samples and of their initial images are those of the section `samples`.
    """
    table = measurement.table
    energies = {"clean": mean_std(table["clean_lse"])}
    pushed = [name for name in ("pgd", "ta") if f"{name}_ball_lse" in table]
    energies |= {name: mean_std(table[f"{name}_ball_lse"]) for name in pushed}
    outside, fingerprints = {}, {}
    data_sets = [other for other in config.outside if other != "noise"]
    everything: list[str | DataSettings] = ["noise", *data_sets]
    for settings in everything:
        title = settings if isinstance(settings, str) else settings.title
        fingerprints[title], others = _read_outside(settings, measurement)
        energies[title] = mean_std(others["lse"])
        if settings in config.outside:
            outside[title] = {
                label: ood_scores(table[f"clean_{key}"], others[key])
                for key, label in SCORES.items()
                if key in others
            }
    if measurement.target.no_gradient:
        measurement.not_applicable += ["density slope", "density pgd", "density ta"]
    elif len(measurement.context.split.classes) == 2:
        measurement.warnings.update(["with two classes TA's one target is PGD's: they coincide"])
    right = table["clean_pred"] == table["label"]
    return Density(
        calibration=calibration(table["clean_confidence"], right, config.bins),
        energies=energies | sample_energies(measurement.results.get("generation")),
        outside=outside,
        outside_fingerprints=fingerprints,
        pushed={name: _energy_shift(table, name) for name in pushed},
    )


def sample_energies(generation: Generation | None) -> dict[str, MeanStd]:
    """Return LSE f(x, ·) on the samples of each sampler and on their initial images."""
    if generation is None:
        return {}
    found = {}
    for title, figures in generation.samplers.items():
        for name, mean, std in (
            (title, figures.lse, figures.lse_std),
            (f"{title} seeds", figures.lse_seeds, figures.lse_seeds_std),
        ):
            if mean is not None and std is not None:
                found[name] = MeanStd(mean=mean, std=std, images=generation.count)
    return found


def calibration(confidence: pd.Series, right: pd.Series, bins: int) -> Calibration:
    """Return the ECE with equal-width bins: Σ share · |accuracy − confidence|."""
    place = (confidence * bins).astype(int).clip(upper=bins - 1)
    rows, ece = [], 0.0
    for number in range(bins):
        inside = place == number
        row = Bin(low=number / bins, high=(number + 1) / bins, images=int(inside.sum()))
        if row.images:
            sure, accuracy = float(confidence[inside].mean()), float(right[inside].mean())
            ece += row.images / len(confidence) * abs(accuracy - sure)
            row = row.model_copy(update={"confidence": sure, "accuracy": accuracy})
        rows.append(row)
    return Calibration(ece=ece, bins=rows)


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


def _energy_shift(table: pd.DataFrame, name: str) -> EnergyShift:
    change = widened(table[f"{name}_ball_lse"]) - widened(table["clean_lse"])
    right = table[f"{name}_ball_pred"] == table["label"]
    return EnergyShift(
        accuracy=rate(right),
        lse_change=float(change.mean()),
        lse_error=float(change.std() / len(change) ** 0.5) if len(change) > 1 else 0.0,
    )


def _read_outside(
    settings: str | DataSettings, measurement: Measurement
) -> tuple[str, pd.DataFrame]:
    """Return the SHA-256 of out-of-distribution images, as many as are attacked, and scores."""
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
        parts.append(scores_of(target, batch.to(context.split.device)))
    target.require_finite(f"on {settings if isinstance(settings, str) else settings.title}")
    scores = {key: torch.cat([part[key] for part in parts]).cpu().numpy() for key in parts[0]}
    return sha.hexdigest(), pd.DataFrame(scores)

"""The network as a density: calibration, energies, out-of-distribution scores, PGD against TA."""

from __future__ import annotations

import hashlib

import pandas as pd
import torch
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor, nn

from cembench import energy
from cembench.attacks.verdict import CheckedModel
from cembench.data import DataSettings
from cembench.data.resize import resized
from cembench.data.split import subset
from cembench.energy import potentials
from cembench.energy.ascent import ascend
from cembench.energy.threat import Threat
from cembench.evaluation.protocol import Protocol
from cembench.evaluation.results import (
    Bin,
    Calibration,
    Density,
    EnergyShift,
    MeanStd,
    OODScores,
    rate,
)
from cembench.evaluation.sections import DensityConfig
from cembench.util.rng import derive, generator_of

SCORES = ("lse", "confidence", "slope")


def look(
    model: nn.Module, x: Tensor, y: Tensor, threat: Threat, plan: DensityConfig, seed: int
) -> dict[str, Tensor]:
    """Return columns for the table of verdicts, a value an image of x (N×C×H×W), labels y (N)."""
    columns = {f"clean_{key}": value for key, value in scores_of(model, x).items()}
    for name, moved in push(model, x, y, threat, plan.steps, seed).items():
        with torch.no_grad():
            out = model(moved)
        columns |= {f"{name}_ball_pred": out.argmax(1), f"{name}_ball_lse": energy.marginal(out)}
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


def scores_of(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Return `lse`, `confidence` (max-softmax) and `slope` (−‖∇ₓ LSE‖), N values each."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        out = model(x)
        lse = energy.marginal(out)
        (gradient,) = torch.autograd.grad(lse.sum(), x)
    confidence = out.detach().softmax(1).amax(1)
    slope = -gradient.flatten(1).norm(dim=1)
    return {"lse": lse.detach(), "confidence": confidence, "slope": slope}


def summarise(
    table: pd.DataFrame,
    watched: CheckedModel,
    shape: list[int],
    protocol: Protocol,
    device: torch.device,
) -> Density:
    """Return the figures from the columns of `look`, and of as many images from outside."""
    plan, batch = protocol.density or DensityConfig(), protocol.batch_size
    energies = {"clean": mean_std(table["clean_lse"])}
    energies |= {name: mean_std(table[f"{name}_ball_lse"]) for name in ("pgd", "ta")}
    outside, fingerprints = {}, {}
    others_too = [other for other in plan.outside if other != "noise"]
    everything: list[str | DataSettings] = ["noise", *others_too]
    for settings in everything:
        title = settings if isinstance(settings, str) else settings.title
        images = _ood_images(settings, len(table), shape, protocol.seed)
        fingerprints[title] = hashlib.sha256(images.numpy().tobytes()).hexdigest()
        others = _read(watched, images, batch, device)
        watched.require_finite(f"on {title}")
        energies[title] = mean_std(others["lse"])
        if settings in plan.outside:
            outside[title] = {
                label: ood_scores(table[f"clean_{key}"], others[key])
                for key, label in zip(SCORES, ("log_px", "max_softmax", "slope"), strict=True)
            }
    right = table["clean_pred"] == table["label"]
    return Density(
        calibration=calibration(table["clean_confidence"], right, plan.bins),
        energies=energies,
        outside=outside,
        outside_fingerprints=fingerprints,
        pushed={name: _energy_shift(table, name) for name in ("pgd", "ta")},
    )


def calibration(confidence: pd.Series, right: pd.Series, bins: int) -> Calibration:
    """Return the ECE with equal-width bins: Σ share · |accuracy − confidence|."""
    place = (confidence * bins).astype(int).clip(upper=bins - 1)
    rows, ece = [], 0.0
    for number in range(bins):
        inside = place == number
        count = int(inside.sum())
        sure = float(confidence[inside].mean()) if count else None
        accuracy = float(right[inside].mean()) if count else None
        if sure is not None and accuracy is not None:
            ece += count / len(confidence) * abs(accuracy - sure)
        rows.append(
            Bin(
                low=number / bins,
                high=(number + 1) / bins,
                images=count,
                confidence=sure,
                accuracy=accuracy,
            )
        )
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


def mean_std(values: pd.Series | Tensor) -> MeanStd:
    """Return mean and standard deviation."""
    series = pd.Series(values.cpu().numpy()) if isinstance(values, Tensor) else values
    return MeanStd(mean=float(series.mean()), std=float(series.std(ddof=0)), images=len(series))


def _energy_shift(table: pd.DataFrame, name: str) -> EnergyShift:
    change = table[f"{name}_ball_lse"] - table["clean_lse"]
    right = table[f"{name}_ball_pred"] == table["label"]
    return EnergyShift(
        accuracy=rate(right),
        lse_change=float(change.mean()),
        lse_error=float(change.std() / len(change) ** 0.5) if len(change) > 1 else 0.0,
    )


def _ood_images(settings: str | DataSettings, count: int, shape: list[int], seed: int) -> Tensor:
    if isinstance(settings, str):
        return torch.rand(count, *shape, generator=generator_of(derive(seed, "noise"), "cpu"))
    return resized(subset(settings.load("test"), count)[0], shape).pixels()


def _read(model: nn.Module, images: Tensor, batch: int, device: torch.device) -> pd.DataFrame:
    parts = [scores_of(model, part.to(device)) for part in images.split(batch)]
    return pd.DataFrame({key: torch.cat([p[key] for p in parts]).cpu().numpy() for key in SCORES})

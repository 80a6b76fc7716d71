"""The network as a density: calibration, energies, out-of-distribution scores, PGD against TA."""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor, nn

from cembench import energy
from cembench.data import DataSettings
from cembench.energy import potentials
from cembench.energy.threat import Threat
from cembench.evaluation.chunk import Chunk, Columns
from cembench.evaluation.measure import Measurement
from cembench.evaluation.measures.outside import (
    climb,
    read_outside,
    scores_of,
    separations,
    title_of,
)
from cembench.evaluation.sections.density import DensityConfig
from cembench.evaluation.sections.density_results import (
    Bin,
    Calibration,
    Density,
    EnergyShift,
)
from cembench.evaluation.sections.samples import Generation
from cembench.evaluation.statistics import MeanStd, mean_std, rate, widened
from cembench.util.processes.distributed import World
from cembench.util.rng import derive, generator_of


def chunk_columns(config: DensityConfig, chunk: Chunk) -> Columns:
    """Return what the network says of p(x) on a chunk, one value per image.

    `clean_lse`, `clean_confidence` and `clean_slope` as `scores_of` has them, `clean_nll` and
    `clean_brier` as `proper_scores` has; and for `pgd` and `ta` inside the ball, `X_ball_pred` and
    `X_ball_lse`. Without a gradient there are neither slopes nor pushed images.
    """
    seed = derive(chunk.protocol.seed, "density", int(chunk.rows[0]))
    x, y, target = chunk.split.pixels(), chunk.split.labels, chunk.target
    model = target.plain
    out, scores = scores_of(target, x)
    scores |= proper_scores(out, y)
    columns: Columns = {f"clean_{key}": value for key, value in scores.items()}
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
    generator = generator_of(seed, x.device)
    start = threat.ball.uniform(x, generator)
    with torch.no_grad():
        classes = model(x[:1]).shape[1]
    shift = torch.randint(1, classes, y.shape, generator=generator, device=y.device)
    climbs = {
        "pgd": (potentials.cross_entropy, y),
        "ta": (potentials.conditional, (y + shift) % classes),
    }
    return {
        name: climb(model, potential, start, target, x, threat, steps)
        for name, (potential, target) in climbs.items()
    }


def proper_scores(out: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Return `nll`, −log p(y|x), and `brier`, Σ_k (p(k|x) − [k = y])²: N×K logits, N labels."""
    logs = out.double().log_softmax(1)
    off = logs.exp() - nn.functional.one_hot(y, out.shape[1])
    return {"nll": -energy.joint(logs, y), "brier": off.square().sum(1)}


def share(config: DensityConfig, measurement: Measurement, ranks: World) -> None:
    """Read this process's share of the sets of out-of-distribution images, into the cache."""
    for settings in ranks.deal("outside", _everything(config)):
        read_outside(settings, measurement, _steps(config, settings, measurement))


def _everything(config: DensityConfig) -> list[str | DataSettings]:
    return ["noise", *(other for other in config.outside if other != "noise")]


def _steps(config: DensityConfig, settings: str | DataSettings, measurement: Measurement) -> int:
    """Return with how many steps of PGD images are attacked."""
    attacked = settings in config.outside and config.attack_outside
    return config.steps if attacked and not measurement.target.no_gradient else 0


def measure(config: DensityConfig, measurement: Measurement) -> Density:
    """Summarise the columns of the table, and score as many out-of-distribution images.

    Energies of samples and of their initial images are those of the section `samples`.
    """
    table, no_gradient = measurement.table, bool(measurement.target.no_gradient)
    energies = {"clean": mean_std(table["clean_lse"])}
    pushed = [name for name in ("pgd", "ta") if f"{name}_ball_lse" in table]
    energies |= {name: mean_std(table[f"{name}_ball_lse"]) for name in pushed}
    outside, attacked, fingerprints = {}, {}, {}
    for settings in _everything(config):
        title, asked = title_of(settings), settings in config.outside
        steps = _steps(config, settings, measurement)
        fingerprints[title], others = read_outside(settings, measurement, steps)
        energies[title] = mean_std(others["lse"])
        if asked:
            outside[title] = separations(table, others, "")
        if steps:
            attacked[title] = separations(table, others, "attacked_")
    if no_gradient:
        measurement.not_applicable += ["density slope", "density pgd", "density ta"]
        measurement.not_applicable += ["density attacked outside"] * config.attack_outside
    elif len(measurement.context.split.classes) == 2:
        measurement.warnings.update(["with two classes TA's one target is PGD's: they coincide"])
    right = table["clean_pred"] == table["label"]
    return Density(
        calibration=calibration(table["clean_confidence"], right, config.bins),
        nll=mean_std(table["clean_nll"]),
        brier=mean_std(table["clean_brier"]),
        energies=energies | sample_energies(measurement.results.get("generation")),
        outside=outside,
        outside_fingerprints=fingerprints,
        outside_attacked=attacked,
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


def _energy_shift(table: pd.DataFrame, name: str) -> EnergyShift:
    change = widened(table[f"{name}_ball_lse"]) - widened(table["clean_lse"])
    right = table[f"{name}_ball_pred"] == table["label"]
    return EnergyShift(
        accuracy=rate(right),
        lse_change=float(change.mean()),
        lse_error=float(change.std() / len(change) ** 0.5) if len(change) > 1 else 0.0,
    )

"""Benchmarks by name, with the options of the command line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from cembench.bench.attack import REFERENCES, bench_attack
from cembench.bench.sample import SAMPLERS, bench_sample
from cembench.bench.sanity import bench_sanity
from cembench.bench.scale import bench_scale
from cembench.bench.train import METHODS, bench_train
from cembench.models.fast_copy import has_bfloat16
from cembench.util.errors import CembenchError
from cembench.util.settings import nearest


def run(
    work: str,
    device: str,
    *,
    method: str,
    sampler: str,
    model: str,
    batch: int,
    rounds: int,
    images: int,
    seeds: int,
    precision: str,
    compiled: bool,
    checkpoints: Sequence[Path] = (),
) -> list[dict[str, Any]]:
    """Run one benchmark and return its rows.

    Args:
        work: `autoattack` (the standard version), `pgd` (20 steps), `train`, `sample`, `scale` or
            `sanity`.
        device: `cpu` or `cuda`.
        method: that trains, a key of `train.METHODS`.
        sampler: a key of `sample.SAMPLERS`.
        model: name of the architecture that trains or is sampled from, on 3×32×32 images.
        batch: images per step over all processes, or samples per draw.
        rounds: timed steps, draws or checks of each side, after one that is not counted.
        images: test images that are attacked, at most 597.
        seeds: the number of rounds of attacks.
        precision: of our side; the reference is always float32.
        compiled: whether our network is compiled.
        checkpoints: networks to attack in place of those that the benchmark trains.

    Raises:
        CembenchError: for a method or a sampler without a reference loop, or checkpoints for a
            work that is no attack.
    """
    if checkpoints and work not in REFERENCES:
        raise CembenchError(f"--checkpoint: {work} attacks none; give {' or '.join(REFERENCES)}")
    if precision == "auto":
        precision = "bf16" if has_bfloat16(torch.device(device)) else "fp32"
    if work == "train":
        require("--method", method, METHODS)
        return bench_train(model, batch, rounds, precision, device, method, compiled)
    if work == "scale":
        return bench_scale(model, batch, rounds, precision, device)
    if work == "sanity":
        return bench_sanity(images, rounds, device)
    if work == "sample":
        require("--sampler", sampler, SAMPLERS)
        return bench_sample(model, batch, rounds, precision, device, sampler)
    engine = {"name": "fast", "precision": precision, "compile": compiled}
    return bench_attack(work, images, seeds, device, engine, checkpoints)


def require(option: str, name: str, known: Iterable[str]) -> None:
    """Refuse a name that has no reference loop."""
    if name not in known:
        raise CembenchError(f"{option}: no plain loop for '{name}'; {nearest(name, known)}")

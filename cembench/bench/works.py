"""Benchmarks by name, with the options of the command line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from cembench.bench.attack import REFERENCES, bench_attack
from cembench.bench.counts import bench_counts
from cembench.bench.machine import machine
from cembench.bench.networks import SMALL, EnlargedDigits
from cembench.bench.sample import SAMPLERS, bench_sample
from cembench.bench.sanity import bench_sanity
from cembench.bench.scale import bench_scale
from cembench.bench.train import METHODS, bench_train
from cembench.data import datasets
from cembench.models import models
from cembench.models.copies.fast_copy import has_bfloat16
from cembench.models.engine import Fast
from cembench.util.errors import CembenchError
from cembench.util.files.yaml import parse_yaml
from cembench.util.settings import nearest


def run(
    work: str,
    device: str,
    *,
    method: str,
    sampler: str,
    model: str | None,
    data: str | None,
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
        work: `autoattack` (the standard version), `pgd` (20 steps), `train`, `sample`, `scale`,
            `sanity` or `counts`.
        device: `cpu` or `cuda`.
        method: that trains, a key of `train.METHODS`.
        sampler: a key of `sample.SAMPLERS`.
        model: YAML of the architecture, by name or with settings. Unless given, a ResNet-18 is
            trained or sampled from, and one of width 8 is attacked.
        data: the data set whose images train and sample; unless given, digits in the shape of
            CIFAR-10's images.
        batch: images per step over all processes, or samples per draw.
        rounds: timed steps, draws or checks of each side, after one that is not counted.
        images: test images that are attacked, at most 597.
        seeds: the number of rounds of attacks.
        precision: of our side; the reference is always float32.
        compiled: whether our network is compiled.
        checkpoints: networks to attack in place of those that the benchmark trains.

    Raises:
        CembenchError: for a method or a sampler without a reference loop, a model or a data set
            that does not exist, or checkpoints for a work that is no attack.
    """
    if checkpoints and work not in REFERENCES:
        raise CembenchError(f"--checkpoint: {work} attacks none; give {' or '.join(REFERENCES)}")
    if precision == "auto":
        precision = "bf16" if has_bfloat16(torch.device(device)) else "fp32"
    usual = SMALL if work in REFERENCES else "resnet18"
    network = models.parse(usual if model is None else parse_yaml(model, "--model"))
    images_of = EnlargedDigits() if data is None else datasets.parse(parse_yaml(data, "--data"))
    measured = network, images_of, batch, rounds, precision, device
    if work == "counts":
        found = bench_counts()
    elif work == "train":
        require("--method", method, METHODS)
        found = bench_train(*measured, method, compiled)
    elif work == "scale":
        found = bench_scale(network, batch, rounds, precision, device)
    elif work == "sanity":
        found = bench_sanity(images, rounds, device)
    elif work == "sample":
        require("--sampler", sampler, SAMPLERS)
        found = bench_sample(*measured, sampler)
    else:
        engine = Fast.parse({"precision": precision, "compile": compiled})
        found = bench_attack(work, network, images, seeds, device, engine, checkpoints)
    return [row | machine(device) for row in found]


def require(option: str, name: str, known: Iterable[str]) -> None:
    """Refuse a name that has no reference loop."""
    if name not in known:
        raise CembenchError(f"{option}: no plain loop for '{name}'; {nearest(name, known)}")

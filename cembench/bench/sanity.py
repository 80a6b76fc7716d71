"""Benchmark of the gradient-masking checks against one plain PGD run on the same images."""

from __future__ import annotations

from typing import Any

import torch

from cembench.attacks import Target
from cembench.bench import interleaved
from cembench.bench.attack import torchattacks_pgd
from cembench.bench.networks import SMALL, EnlargedDigits, described, trained
from cembench.data.split import subset
from cembench.evaluation.measures.sanity import sanity_checks
from cembench.evaluation.sections.sanity import SanityCheck, SanityConfig
from cembench.models import models
from cembench.util.frozen import exact, frozen

PGD_STEPS = 100


def bench_sanity(images: int, rounds: int, device: str) -> list[dict[str, Any]]:
    """Time all checks, and torchattacks' PGD with 100 steps on the images that they are made on.

    There is a row per network: `ratio` is the time of the checks over that of PGD, and `failed`
    names the checks that fail.
    """
    return [_bench(kind, images, rounds, device) for kind in ("robust", "standard")]


def _bench(kind: str, images: int, rounds: int, device: str) -> dict[str, Any]:
    model, data = trained(kind, device), EnlargedDigits()
    some = subset(data.load("test"), images)[0].to(torch.device(device))
    with torch.no_grad():
        right = model(some.pixels()).argmax(1) == some.labels
    split = some.take(right.nonzero().squeeze(1).cpu())
    x, y = split.pixels(), split.labels
    checks: list[SanityCheck] = []

    def run_checks() -> None:
        target = Target.of(model, data.threat, len(split.classes))
        checks[:] = sanity_checks(target, split, SanityConfig(images=len(split)))

    def run_pgd() -> None:
        torchattacks_pgd(model, x, y, data.threat, 0, PGD_STEPS)

    with frozen(model), exact():
        timing = interleaved(run_checks, run_pgd, rounds, device)
    return {
        "work": "sanity",
        "model": kind,
        "network": described(models.parse(SMALL)),
        "images": len(split),
        "seconds": round(timing.ours, 3),
        "pgd_seconds": round(timing.theirs, 3),
        "ratio": round(timing.ours / timing.theirs, 3),
        "failed": " ".join(check.name for check in checks if check.verdict == "fail"),
    }

"""Our work beside a plain reference loop: same process, same data, interleaved, medians."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from cembench.checkpoint import Passport
from cembench.config import Experiment
from cembench.data import DataSettings
from cembench.data.split import Split
from cembench.guard import exact, frozen, generator_of
from cembench.leaderboard.board import markdown_table
from cembench.models import models
from cembench.models.classifier import build_classifier
from cembench.samplers.energy import RCS
from cembench.sampling import Origins, draw
from cembench.threat import Threat
from cembench.trainer import Trainer

EPS, ALPHA, STEPS, RCS_STEP = 8 / 255, 2 / 255, 10, 0.35


class RandomImages(DataSettings):
    """Noise of CIFAR-10's shape: the cost of a step does not depend on what is in the images."""

    name: ClassVar[str] = "random"
    count: int = 256

    def load(self, split: Literal["train", "test"]) -> Split:
        """Return the same noise each time."""
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(256, (self.count, 3, 32, 32), generator=generator)
        labels = torch.arange(self.count) % 10
        return Split(images.byte(), labels, tuple("0123456789"))


def bench_train(
    model: str, batch: int, rounds: int, precision: str, device: str
) -> list[dict[str, Any]]:
    """Time a PGD-AT step (10 steps of 2/255 in 8/255) against the plain loop.

    Args:
        model: name of the architecture, on 3×32×32 images with 10 classes.
        batch: images a step.
        rounds: timed steps of each, after one that is not counted.
        precision: of our loop; the reference is always float32.
        device: where to compute.

    Returns:
        A row a comparison; `ratio` is reference time over ours, so above 1 ours is faster.
    """
    experiment = Experiment.parse(
        {
            "data": RandomImages(count=2 * batch),
            "model": model,
            "method": {"name": "at", "negatives": {"name": "pgd", "step_size": ALPHA}},
            "batch_size": batch,
            "precision": precision,
            "validation": {"fraction": 0.5},
        }
    )
    trainer = Trainer(experiment, torch.device(device))
    reference = build_classifier(experiment.model, (3, 32, 32), 10, *trainer.statistics).to(device)
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    rows = torch.arange(batch, device=device)
    x, y = trainer.data.pixels(rows), trainer.data.labels[rows]
    generator = generator_of(0, device)
    ours, theirs = interleaved(
        lambda: trainer.step(0, rows, generator),
        lambda: plain_step(reference, optimizer, x, y),
        rounds,
        device,
    )
    return [_row("train at", model, batch, precision, ours, theirs)]


def plain_step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
    """Take one PGD-AT step as research code writes it: float32, default layout, no tricks."""
    model.eval()
    perturbed = x + 0.001 * torch.randn_like(x)
    for _ in range(STEPS):
        perturbed.requires_grad_()
        gradient = torch.autograd.grad(cross_entropy(model(perturbed), y), [perturbed])[0]
        perturbed = perturbed.detach() + ALPHA * gradient.sign()
        perturbed = torch.min(torch.max(perturbed, x - EPS), x + EPS).clamp(0, 1)
    model.train()
    optimizer.zero_grad()
    cross_entropy(model(perturbed), y).backward()
    optimizer.step()


def bench_sample(model: str, batch: int, rounds: int, device: str) -> list[dict[str, Any]]:
    """Time RCS (10 normalised steps of 0.35, kept in [0, 1]) against the plain loop.

    Args and return value are those of `bench_train`.
    """
    data = RandomImages(count=batch)
    passport = Passport(
        model=models.parse(model),
        shape=[3, 32, 32],
        classes=list("0123456789"),
        mean=[0.0] * 3,
        std=[1.0] * 3,
        data=data,
        threat=Threat(norm="linf", eps=EPS),
        method="none",
    )
    torch.manual_seed(0)
    net = passport.build().to(device).eval()
    y = torch.arange(batch, device=device) % 10
    origins = Origins(Path("model.safetensors"), passport, torch.device(device))
    sampler = RCS(steps=STEPS, step_size=RCS_STEP, start="noise")
    with frozen(net), exact():
        ours, theirs = interleaved(
            lambda: draw(net, sampler, y, origins, 0),
            lambda: plain_rcs(net, batch, y),
            rounds,
            device,
        )
    return [_row("sample rcs", model, batch, "fp32", ours, theirs)]


def plain_rcs(model: nn.Module, batch: int, y: Tensor) -> tuple[Tensor, Tensor]:
    """Draw samples, and how the network sees them, as research code writes it."""
    x = torch.rand(batch, 3, 32, 32, device=y.device)
    for _ in range(STEPS):
        x.requires_grad_()
        logits = model(x)
        score = logits.gather(1, y[:, None]).squeeze(1) + logits.logsumexp(1)
        gradient = torch.autograd.grad(score.sum(), [x])[0]
        length = gradient.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1).clamp_min(1e-12)
        x = (x.detach() + RCS_STEP * gradient / length).clamp(0, 1)
    with torch.no_grad():
        return x, model(x)


def _row(
    work: str, model: str, batch: int, precision: str, ours: float, theirs: float
) -> dict[str, Any]:
    return {
        "work": work,
        "model": model,
        "batch": batch,
        "precision": precision,
        "images_per_second": round(batch / ours, 2),
        "reference_images_per_second": round(batch / theirs, 2),
        "ratio": round(theirs / ours, 3),
    }


def interleaved(
    ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int, device: str
) -> tuple[float, float]:
    """Return the median seconds of two functions called in turn, in swapped order each round."""
    times: dict[int, list[float]] = {0: [], 1: []}
    for number in range(rounds + 1):
        for which in (0, 1) if number % 2 else (1, 0):
            begun = time.perf_counter()
            (ours, theirs)[which]()
            if device == "cuda":
                torch.cuda.synchronize()
            if number > 0:
                times[which].append(time.perf_counter() - begun)
    return statistics.median(times[0]), statistics.median(times[1])


def table(rows: list[dict[str, Any]]) -> str:
    """Return bench rows as a markdown table."""
    return markdown_table(pd.DataFrame(rows))

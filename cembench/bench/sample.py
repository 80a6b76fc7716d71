"""RCS beside the loop that research code has for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cembench.bench import EPS, SHAPE, STEPS, RandomImages, interleaved, row
from cembench.checkpoint import Passport
from cembench.guard import exact, frozen
from cembench.models import models
from cembench.origins import Origins
from cembench.samplers.energy import RCS
from cembench.sampling import draw
from cembench.threat import Threat

RCS_STEP = 0.35


def bench_sample(model: str, batch: int, rounds: int, device: str) -> list[dict[str, Any]]:
    """Time RCS (10 normalised steps of 0.35, kept in [0, 1]) against the plain loop.

    Args:
        model: name of the architecture, on 3×32×32 images with 10 classes.
        batch: samples.
        rounds: timed draws of each, after one that is not counted.
        device: where to compute.

    Returns:
        A row, as `bench_train`.
    """
    data = RandomImages(count=batch)
    passport = Passport(
        model=models.parse(model),
        shape=list(SHAPE),
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
    return [row("sample rcs", model, batch, "fp32", ours, theirs)]


def plain_rcs(model: nn.Module, batch: int, y: Tensor) -> tuple[Tensor, Tensor]:
    """Draw samples, and how the network sees them, as research code writes it."""
    x = torch.rand(batch, *SHAPE, device=y.device)
    for _ in range(STEPS):
        x.requires_grad_()
        logits = model(x)
        score = logits.gather(1, y[:, None]).squeeze(1) + logits.logsumexp(1)
        gradient = torch.autograd.grad(score.sum(), [x])[0]
        length = gradient.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1).clamp_min(1e-12)
        x = (x.detach() + RCS_STEP * gradient / length).clamp(0, 1)
    with torch.no_grad():
        return x, model(x)

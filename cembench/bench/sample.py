"""Benchmark of RCS and SGLD against the plain loops of research code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cembench.bench import interleaved, row
from cembench.bench.meters import flops
from cembench.bench.networks import described, untrained_metadata
from cembench.bench.passes import Counted, CountedEngine, Passes
from cembench.data import DataSettings
from cembench.models import ModelSettings
from cembench.models.checkpoint import build_network
from cembench.samplers import Sampler
from cembench.samplers.context import CheckpointImages
from cembench.samplers.draw import draw
from cembench.samplers.logits import RCS, SGLD
from cembench.util.frozen import exact, frozen

STEPS, RCS_STEP, SGLD_STEP, SGLD_NOISE = 40, 0.35, 0.25, 0.005
SAMPLERS: dict[str, Sampler] = {
    "rcs": RCS(steps=STEPS, step_size=RCS_STEP, start="noise"),
    "sgld": SGLD(steps=STEPS, step_size=SGLD_STEP, noise=SGLD_NOISE, start="noise", box=True),
}


def bench_sample(
    model: ModelSettings,
    data: DataSettings,
    batch: int,
    rounds: int,
    precision: str,
    device: str,
    sampler: str,
) -> list[dict[str, Any]]:
    """Time 40 steps from noise, kept in [0, 1], against the plain loop.

    The network is not trained. The `agreement` of the row is the fraction of samples, from the same
    initial images, that the network classifies alike on both sides.
    """
    metadata = untrained_metadata(model, data)
    torch.manual_seed(0)
    net = build_network(metadata).to(device).eval()
    y = torch.arange(batch, device=device) % len(metadata.classes)
    images = CheckpointImages(Path("model.safetensors"), metadata, torch.device(device))
    example = images.data.pixels(slice(2))
    counted, chosen = Counted(net, Passes()), SAMPLERS[sampler]
    engine = CountedEngine.parse({"inner": {"name": "fast", "precision": precision}})
    found: dict[str, Tensor] = {}

    def run_ours() -> None:
        surrogate = engine.prepare(counted, example)
        drawn = draw(counted, chosen, y, images, 0, surrogate=surrogate)
        found["ours"], found["starts"] = drawn.logits, drawn.starts

    def run_theirs() -> None:
        found["theirs"] = PLAIN[sampler](net, found["starts"], y)[1]

    with frozen(net), exact():
        run_ours()
        done = counted.passes.operations(*flops(net, example))
        timing = interleaved(run_ours, run_theirs, rounds, device)
    alike = found["ours"].argmax(1) == found["theirs"].argmax(1)
    agreement, title = float(alike.float().mean()), f"sample {sampler}"
    return [row(title, "new", described(model), batch, precision, timing, agreement, done, device)]


def plain_rcs(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return samples and their logits, computed as in research code."""
    for _ in range(STEPS):
        x = x.detach().requires_grad_()
        logits = model(x)
        score = logits.gather(1, y[:, None]).squeeze(1) + logits.logsumexp(1)
        gradient = torch.autograd.grad(score.sum(), [x])[0]
        length = gradient.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1).clamp_min(1e-12)
        x = (x.detach() + RCS_STEP * gradient / length).clamp(0, 1)
    with torch.no_grad():
        return x, model(x)


def plain_sgld(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return samples of log p(x) and their logits, as in JEM's code; labels are not used."""
    for _ in range(STEPS):
        x = x.detach().requires_grad_()
        gradient = torch.autograd.grad(model(x).logsumexp(1).sum(), [x])[0]
        x = x.detach() + SGLD_STEP * gradient + SGLD_NOISE * torch.randn_like(x)
        x = x.clamp(0, 1)
    with torch.no_grad():
        return x, model(x)


PLAIN: dict[str, Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "rcs": plain_rcs,
    "sgld": plain_sgld,
}

"""Rates: seconds of a pass of an image through the real network, measured on the device.

A few batches of random images are timed, as large as those of training or of the attacks, or
smaller where a large one would take long. Nothing is trained or written.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from cembench.energy import potentials
from cembench.energy.ascent import ascend
from cembench.energy.threat import Threat
from cembench.evaluation.protocol import Protocol
from cembench.models.copies.surrogate import ascent_model
from cembench.models.engine import EXAMPLES
from cembench.suites.passes import Passes
from cembench.suites.sizes import Images
from cembench.training.build import followed, memory_format
from cembench.training.config import Experiment
from cembench.training.optim import build_optimizer
from cembench.util.frozen import frozen, proposing
from cembench.util.rng import isolated_rng

SECONDS = 0.5  # that a timed batch should take at most
REPEATS = 3  # of each batch; the fastest counts, since other work only slows
STEPS = 5  # of an ascent


@dataclass(frozen=True)
class Rates:
    """Seconds of an image for each kind of pass.

    Attributes:
        gradient: gradient with respect to the image, one step of an ascent included.
        forward: forward pass.
        update: gradient with respect to the weights, and its share of an optimiser step.
    """

    gradient: float
    forward: float
    update: float = 0.0

    def seconds(self, passes: Passes) -> float:
        """Return what passes take."""
        return (
            passes.gradients * self.gradient
            + passes.forwards * self.forward
            + passes.updates * self.update
        )


def training_rates(experiment: Experiment, images: Images, device: torch.device) -> Rates:
    """Measure a network as training uses it: samplers follow a copy of it where they would.

    Raises:
        Exception: whatever the network raises.
    """
    batch, bf16 = experiment.batch_size, experiment.precision == "bf16"
    layout = memory_format(experiment, images.shape[1], batch, device)
    net = _built(experiment, images, device).to(memory_format=layout)
    optimizer = build_optimizer(experiment.optimizer, net)
    copy = followed(experiment, net, torch.rand(2, *images.shape, device=device))
    sampler = experiment.method.samplers.get("negatives")
    mode: Literal["eval", "train"] = getattr(sampler, "mode", "eval")

    def update(x: Tensor) -> None:
        optimizer.zero_grad()
        net(x.to(memory_format=layout)).square().mean().backward()
        optimizer.step()

    def draw(x: Tensor) -> None:
        with ascent_model(net, x, mode, copy) as model:
            _ascend(model, experiment.threat, x.to(memory_format=layout))

    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        net.train()
        updating = _per_image(update, images, batch, device, fewest=2)
        drawing = _per_image(draw, images, batch, device, fewest=2) / STEPS
        net.eval()
        return Rates(drawing, _per_image(_forward(net), images, batch, device), updating)


def evaluation_rates(
    experiment: Experiment, protocol: Protocol, images: Images, device: torch.device
) -> Rates:
    """Measure a network as attacks use it, through the engine of a protocol."""
    net = _built(experiment, images, device).eval()
    threat = protocol.threat.over(experiment.threat)
    chunk = min(protocol.batch_size, protocol.limit or images.test)
    with isolated_rng(0), frozen(net), proposing():
        example = torch.rand(EXAMPLES, *images.shape, device=device)
        fast = protocol.engine.prepare(net, example)
        return Rates(
            _per_image(partial(_ascend, fast, threat), images, chunk, device) / STEPS,
            _per_image(_forward(fast), images, chunk, device),
        )


def _built(experiment: Experiment, images: Images, device: torch.device) -> nn.Module:
    with isolated_rng(0):
        return experiment.model.build(images.shape, images.classes).to(device)


def _forward(net: nn.Module) -> Callable[[Tensor], object]:
    @torch.no_grad()
    def forward(x: Tensor) -> object:
        return net(x)

    return forward


def _ascend(net: nn.Module, threat: Threat, x: Tensor) -> None:
    """Take a few steps from images in the ball around them."""
    y, ball = torch.zeros(len(x), dtype=torch.long, device=x.device), threat.ball
    ascend(
        net,
        potentials.cross_entropy,
        x,
        y,
        steps=STEPS,
        step_size=threat.eps / STEPS,
        direction=ball.direction,
        ball=ball,
        centre=x,
    )


def _per_image(
    run: Callable[[Tensor], object],
    images: Images,
    batch: int,
    device: torch.device,
    fewest: int = 1,
) -> float:
    """Return the seconds of an image in a batch.

    Where a whole batch would take long, a part of it and a smaller one are timed, which tell what
    a pass costs whatever the images, such as a step of the optimizer, and what each of them does.
    """
    x = torch.rand(fewest, *images.shape, device=device)
    run(x)
    few = seconds_of(run, x)
    size = min(batch, max(2 * fewest, int(SECONDS * fewest / max(few, 1e-9))))
    many = seconds_of(run, torch.rand(size, *images.shape, device=device))
    if size <= fewest or size == batch:
        return many / size
    each = max(0.0, many - few) / (size - fewest)
    return each + max(0.0, few - fewest * each) / batch


def seconds_of(run: Callable[[Tensor], object], x: Tensor) -> float:
    """Return the seconds of a call, the fastest of a few."""
    return min(_timed(run, x) for _ in range(REPEATS))


def _timed(run: Callable[[Tensor], object], x: Tensor) -> float:
    """Return the seconds of a call: of the CPU where one thread computes, else those that pass."""
    alone = x.device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    begun = clock()
    run(x)
    if x.is_cuda:
        torch.cuda.synchronize()
    return clock() - begun

"""Rates: seconds of a pass of an image through the real network, measured on the device.

A few batches of random images are timed, as large as those of training or of the attacks, or
smaller where a large one would take long. Nothing is trained or written.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cembench.energy import potentials
from cembench.energy.ascent import ascend
from cembench.energy.threat import Threat
from cembench.evaluation.protocol import Protocol
from cembench.models.engine import EXAMPLES
from cembench.suites.passes import Passes
from cembench.suites.sizes import Images
from cembench.training.config import Experiment
from cembench.training.optim import build_optimizer
from cembench.util.frozen import frozen, proposing
from cembench.util.rng import isolated_rng

SECONDS = 0.2  # that a timed batch should take at most
REPEATS = 5  # of each batch; the fastest counts, since other work only slows
STEPS = 3  # of an ascent


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
    """Measure a network as training uses it.

    Raises:
        Exception: whatever the network raises.
    """
    net, batch = _built(experiment, images, device), experiment.batch_size
    optimizer = build_optimizer(experiment.optimizer, net)
    bf16 = experiment.precision == "bf16"

    def update(x: Tensor) -> None:
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()

    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        net.train()
        updating = _per_image(update, images, batch, device, fewest=2)
        net.eval()
        return Rates(
            _per_image(_ascent(net, experiment.threat), images, batch, device) / STEPS,
            _per_image(_forward(net), images, batch, device),
            updating,
        )


def evaluation_rates(
    experiment: Experiment, protocol: Protocol, images: Images, device: torch.device
) -> Rates:
    """Measure a network as attacks use it, through the engine of a protocol."""
    net = _built(experiment, images, device).eval()
    chunk = min(protocol.batch_size, protocol.limit or images.test)
    with isolated_rng(0), frozen(net), proposing():
        example = torch.rand(EXAMPLES, *images.shape, device=device)
        fast = protocol.engine.prepare(net, example)
        climb = _ascent(fast, protocol.threat.over(experiment.threat))
        return Rates(
            _per_image(climb, images, chunk, device) / STEPS,
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


def _ascent(net: nn.Module, threat: Threat) -> Callable[[Tensor], object]:
    ball = threat.ball

    def climb(x: Tensor) -> object:
        y = torch.zeros(len(x), dtype=torch.long, device=x.device)
        return ascend(
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

    return climb


def _per_image(
    run: Callable[[Tensor], object],
    images: Images,
    batch: int,
    device: torch.device,
    fewest: int = 1,
) -> float:
    """Return the seconds of an image in a batch; a small batch comes first, to warm up."""
    x = torch.rand(fewest, *images.shape, device=device)
    run(x)
    one = _timed(run, x) / fewest
    size = max(fewest, min(batch, int(SECONDS / max(one, 1e-9))))
    return seconds_of(run, torch.rand(size, *images.shape, device=device)) / size


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

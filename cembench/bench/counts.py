"""Counts per step of each inner loop: operators, host synchronisations, passes of the network.

They are taken on tiny networks on a CPU, and are the same on every run. They stand in for timings,
which a busy machine cannot give: of what a loop adds to the passes themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cembench.attacks import Target
from cembench.attacks.apgd import apgd, targeted_apgd
from cembench.attacks.fab import targeted_fab
from cembench.attacks.pgd import PGDAttack
from cembench.attacks.square import square
from cembench.attacks.state import AttackState
from cembench.attacks.verdict import CheckedModel
from cembench.bench.calls import Calls
from cembench.bench.networks import described, untrained_metadata
from cembench.bench.train import trainer_of
from cembench.data.digits import Digits
from cembench.energy.threat import Threat
from cembench.models import ModelSettings, models
from cembench.models.checkpoint import build_network
from cembench.models.classifier import Classifier
from cembench.models.engine import Fast
from cembench.samplers.context import CheckpointImages
from cembench.samplers.draw import draw
from cembench.samplers.logits import RCS
from cembench.util.frozen import exact, frozen
from cembench.util.rng import generator_of

IMAGES, CLASSES = 8, 10
STEPS, QUERIES, OPTIMISER_STEPS = 50, 250, 2
BATCH = 256  # pairs of image and target, or proposals, that may share a batch
ATTACKED = models.parse({"name": "small_cnn", "width": 4})
TRAINED = models.parse({"name": "resnet18", "width": 4})
SMALL = [Threat(norm=norm, eps=1e-4) for norm in ("linf", "l2")]  # all images take all steps
LARGE = Threat(norm="linf", eps=0.05)  # most images leave on the way

Loop = Callable[[nn.Module, AttackState, int], object]


def bench_counts() -> list[dict[str, Any]]:
    """Count the loops on eight digits.

    There is a row per loop. A step is a gradient of an attack or a sampler, toward all targets at
    once; a query of Square; or a step of the optimiser. `operations` and `synchronisations` are
    those of a step on all images, and those of the network are among them. `passes` are those of
    an image in a step, toward each target, in forward passes; one with a gradient is two or more.
    """
    with torch.random.fork_rng(devices=[]):
        return [*_attacks(), _sampler(), _training("fp32"), _training("bf16")]


def _pgd(model: nn.Module, state: AttackState, steps: int) -> None:
    plain = CheckedModel(state.verifier, CLASSES)
    threat = Threat(norm=state.ball.name, eps=state.ball.eps)
    target = Target(CheckedModel(model, CLASSES), plain, plain, threat, CLASSES, seed=0)
    ((_, propose),) = PGDAttack(steps=steps).stages(target)
    propose(state.x, state.y)


def _apgd(model: nn.Module, state: AttackState, steps: int) -> None:
    apgd(model, state, steps=steps, generator=_generator())


def _apgd_t(model: nn.Module, state: AttackState, steps: int) -> None:
    targeted_apgd(model, state, steps=steps, max_batch=BATCH, generator=_generator())


def _fab_t(model: nn.Module, state: AttackState, steps: int) -> None:
    targeted_fab(model, state, steps=steps, max_batch=BATCH)


def _square(model: nn.Module, state: AttackState, steps: int, max_batch: int = IMAGES) -> None:
    square(model, state, _generator(), queries=steps, max_batch=max_batch)


LOOPS: dict[str, tuple[Loop, int, int]] = {
    "pgd": (_pgd, STEPS, 1),
    "apgd-ce": (_apgd, STEPS, 1),
    "apgd-t": (_apgd_t, STEPS, CLASSES - 1),
    "fab-t": (_fab_t, STEPS, CLASSES - 1),
    "square": (_square, QUERIES, 1),
    "square, several queries a batch": (partial(_square, max_batch=BATCH), QUERIES, 1),
}  # with steps and targets
LEAVING = ("pgd", "apgd-ce", "square")  # one image at least takes all their steps


def _attacks() -> Iterator[dict[str, Any]]:
    net, images = _network()
    x = images.data.pixels(slice(IMAGES))
    with frozen(net), exact():
        y, of_pass = net(x).argmax(1), _counted(lambda: net(x)).flops
        fast = Fast(precision="fp32").prepare(net, x)
        for threat in (*SMALL, LARGE):
            for name in LOOPS if threat in SMALL else LEAVING:
                loop, steps, targets = LOOPS[name]
                state = AttackState(net, x, y, threat.ball)
                calls = _counted(partial(loop, fast, state, steps))
                ending = ", images leave" if threat is LARGE else ""
                passes = calls.flops / of_pass / targets
                work = f"{name} {threat.norm}{ending}"
                yield _row(work, ATTACKED, "fp32", steps, calls, passes)


def _sampler() -> dict[str, Any]:
    net, images = _network()
    x, y = images.data.pixels(slice(IMAGES)), torch.arange(IMAGES)
    sampler = RCS(steps=STEPS, step_size=0.35, start="noise")
    with frozen(net), exact():
        of_pass = _counted(lambda: net(x)).flops
        fast = Fast(precision="fp32").prepare(net, x)
        calls = _counted(lambda: draw(net, sampler, y, images, 0, surrogate=fast))
    return _row("rcs", ATTACKED, "fp32", STEPS, calls, calls.flops / of_pass)


def _training(precision: str) -> dict[str, Any]:
    trainer = trainer_of(TRAINED, Digits(), "at", IMAGES, precision)
    batch, generator = trainer.feed.at(torch.arange(IMAGES)), _generator()
    trainer.step(0, batch, generator)  # what is made once, is made here
    calls = _counted(lambda: [trainer.step(0, batch, generator) for _ in range(OPTIMISER_STEPS)])
    x = trainer.data.pixels(slice(IMAGES))
    with torch.no_grad():
        of_pass = _counted(lambda: trainer.model(x)).flops
    return _row("train at", TRAINED, precision, OPTIMISER_STEPS, calls, calls.flops / of_pass)


def _network() -> tuple[Classifier, CheckpointImages]:
    torch.manual_seed(0)
    metadata = untrained_metadata(ATTACKED, Digits())
    images = CheckpointImages(Path("model.safetensors"), metadata, torch.device("cpu"))
    net = build_network(metadata).eval()
    *_, last = (layer for layer in net.modules() if isinstance(layer, nn.Linear))
    with torch.no_grad():  # else all images are of the same class, and far from any other
        last.bias.sub_(net(images.data.pixels(slice(IMAGES))).mean(0))
    return net, images


def _generator() -> torch.Generator:
    return generator_of(0, "cpu")


def _counted(block: Callable[[], object]) -> Calls:
    with Calls() as calls:
        block()
    return calls


def _row(
    work: str, network: ModelSettings, precision: str, steps: int, calls: Calls, passes: float
) -> dict[str, Any]:
    return {
        "work": work,
        "network": described(network),
        "images": IMAGES,
        "precision": precision,
        "operations": round(calls.operations / steps, 1),
        "synchronisations": round(calls.synchronisations / steps, 2),
        "passes": round(passes / steps, 2),
    }

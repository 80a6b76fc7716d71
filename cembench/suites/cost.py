"""Cost of the experiments of a suite: how large their networks are, and about how long they take.

Times are estimates: gradients with respect to images, as settings tell, times the measured time of
one. `TimeLeft` corrects them by the experiments that are over.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping

from cembench.evaluation.protocol import Protocol
from cembench.models import ModelSettings
from cembench.training.config import Experiment
from cembench.util.lazy import lazy_imports

with lazy_imports():
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from cembench.data.loading import TrainingData, load_training
    from cembench.data.split import Split
    from cembench.energy.ascent import gradient_of
    from cembench.training.cost import gradients_per_image
    from cembench.util.rng import isolated_rng

TINY = 2e6  # operations of a forward pass; below, threads wait for each other more than they work
BATCH = 64
AUTOATTACK = 3000  # gradients an image, when about two of three images survive
FORWARD = 1 / 3  # of a gradient, a forward pass
SANITY = 500  # gradients an image
FEATURES = 0.01  # seconds an image and sampler


def tiny(experiments: Collection[Experiment]) -> bool:
    """Return whether all networks are so small that one thread each is fastest.

    Networks are built for the images of the first experiment, whose data are the only ones that
    are loaded for this. What cannot be built counts as large; its experiment will say what is
    wrong.
    """
    networks = {repr(one.model): one for one in experiments}.values()
    try:
        split = _data(experiments).training
        return all(forward_operations(one.model, split) < TINY for one in networks)
    except Exception:  # whatever a data set or a network of a plugin raises
        return False


def forward_operations(model: ModelSettings, split: Split) -> float:
    """Return the floating-point operations of a network on one image of a split."""
    with torch.device("meta"):
        net = model.build(split.shape, len(split.classes)).eval()
        x = torch.empty(1, *split.shape)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(x)
    return float(counter.get_total_flops())


def expected_seconds(
    experiments: Mapping[str, Experiment], protocol: Protocol, threads: int
) -> dict[str, float]:
    """Return about how many seconds each experiment takes on the CPU, with so many threads.

    All are taken to have the data of the first one. Nothing is returned where data or a network
    cannot be built.
    """
    one: dict[str, float] = {}
    found = {}
    evaluation = _evaluation_gradients(protocol)
    try:
        data = _data(experiments.values())
        for name, experiment in experiments.items():
            key = repr(experiment.model)
            one[key] = one.get(key) or _gradient_seconds(experiment, data, threads)
            gradients = _training_gradients(experiment, data) + evaluation
            found[name] = one[key] * gradients + _feature_seconds(protocol)
    except Exception:  # as above
        return {}
    return found


def _data(experiments: Collection[Experiment]) -> TrainingData:
    first = next(iter(experiments))
    return load_training(first.data, first.validation.fraction)


def _gradient_seconds(experiment: Experiment, data: TrainingData, threads: int) -> float:
    """Return the seconds of a gradient with respect to one image; the first pass warms up."""
    split, taken = data.training, []
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with isolated_rng(0):
            net = experiment.model.build(split.shape, len(split.classes))
        x = split.pixels(slice(BATCH)).requires_grad_()
        for _ in range(5):
            begun = time.perf_counter()
            gradient_of(net(x).square(), x)
            taken.append(time.perf_counter() - begun)
    finally:
        torch.set_num_threads(before)
    return min(taken) / len(x)


def _training_gradients(experiment: Experiment, data: TrainingData) -> float:
    images = (experiment.epoch_images or data.sizes[0]) * gradients_per_image(experiment)
    validation = experiment.validation
    attacked = min(validation.images, len(data.held)) * validation.steps * len(experiment.threats)
    return experiment.epochs * (images + attacked / validation.every)


def _evaluation_gradients(protocol: Protocol) -> float:
    images = protocol.limit or 10_000
    attacks = [
        AUTOATTACK if run.attack.name.startswith("autoattack") else getattr(run.attack, "steps", 20)
        for run in protocol.runs
    ]
    drawn = protocol.samples
    samplers = [] if drawn is None else [getattr(one, "steps", 20) for one in drawn.samplers]
    count = images if drawn is None else drawn.count or images
    checked = 0 if protocol.sanity is None else SANITY * min(images, protocol.sanity.images)
    changed = protocol.counterfactuals
    searched = 0 if changed is None else images * changed.steps * len(changed.eps)
    corrupted = protocol.corruptions
    passes = 0 if corrupted is None else len(corrupted.asked) * len(corrupted.severities)
    passed = images * passes * FORWARD
    return images * sum(attacks) + count * sum(samplers) + checked + searched + passed


def _feature_seconds(protocol: Protocol) -> float:
    drawn = protocol.samples
    if drawn is None:
        return 0.0
    return FEATURES * (drawn.count or protocol.limit or 10_000) * len(drawn.samplers)


class TimeLeft:
    """The time that a suite still takes, corrected by what its experiments took.

    Args:
        expected: seconds of each experiment, by name.
        jobs: experiments at once.
    """

    def __init__(self, expected: Mapping[str, float], jobs: int) -> None:
        self.expected, self.jobs = dict(expected), jobs
        self.begun: dict[str, float] = {}
        self.taken: dict[str, float] = {}

    def update(self, running: Collection[str], over: Collection[str]) -> None:
        """Take in which experiments run now, and which have just ended."""
        now = time.monotonic()
        for name in running:
            self.begun.setdefault(name, now)
        for name in over:
            self.taken[name] = now - self.begun.get(name, now)

    @property
    def seconds(self) -> float:
        """About how many seconds are left."""
        now, done = time.monotonic(), sum(self.expected[name] for name in self.taken)
        factor = sum(self.taken.values()) / done if done else 1.0
        left = {name: factor * t for name, t in self.expected.items() if name not in self.taken}
        for name in left.keys() & self.begun.keys():
            left[name] = max(left[name] / 10, left[name] - (now - self.begun[name]))
        return max([sum(left.values()) / self.jobs, *left.values()], default=0.0)

"""Cost of the experiments of a suite: how large their networks are, and about how long they take.

Times are estimates: passes, as settings tell, times the measured time of a gradient. `TimeLeft`
corrects them by the experiments that are over. `suites.forecast` measures more, and tells more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping

from cembench.evaluation.protocol import Protocol
from cembench.models import ModelSettings
from cembench.suites.passes import SURVIVE, evaluation_passes, training_passes
from cembench.suites.sizes import Images
from cembench.training.config import Experiment
from cembench.util.lazy import lazy_imports

with lazy_imports():
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from cembench.data.loading import TrainingData, load_training
    from cembench.energy.ascent import gradient_of
    from cembench.util.rng import isolated_rng

TINY = 2e6  # operations of a forward pass; below, threads wait for each other more than they work
BATCH = 64
FEATURES = 0.01  # seconds an image and sampler


def tiny(experiments: Collection[Experiment], size: Callable[[Experiment], Images]) -> bool:
    """Return whether all networks are so small that one thread each is fastest.

    Networks are built for the images of the first experiment. What cannot be built counts as large;
    its experiment will say what is wrong.

    Args:
        experiments: all of them.
        size: returns what is known of the data of one.
    """
    networks = {repr(one.model): one for one in experiments}.values()
    try:
        images = size(next(iter(experiments)))
        return all(forward_operations(one.model, images) < TINY for one in networks)
    except Exception:  # whatever a data set or a network of a plugin raises
        return False


def loaded_size(experiment: Experiment) -> Images:
    """Return the sizes of the data of an experiment, which is loaded; the others will share it."""
    data = _data([experiment])
    split = data.training
    return Images(data.sizes[0] + len(data.held), 0, split.shape, len(split.classes))


def forward_operations(model: ModelSettings, images: Images) -> float:
    """Return the floating-point operations of a network on one image."""
    with torch.device("meta"):
        net = model.build(images.shape, images.classes).eval()
        x = torch.empty(1, *images.shape)
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
    try:
        data = _data(experiments.values())
        images, classes = protocol.limit or 10_000, len(data.held.classes)
        for name, experiment in experiments.items():
            key = repr(experiment.model)
            one[key] = one.get(key) or _gradient_seconds(experiment, data, threads)
            survive = SURVIVE[experiment.method.attacks]
            passes = training_passes(experiment, data.sizes[0], len(data.held))
            passes += evaluation_passes(protocol, images, classes, survive)
            found[name] = one[key] * passes.in_gradients + _feature_seconds(protocol)
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

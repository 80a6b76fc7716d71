"""Forecast of a suite: what its experiments will cost, by passes and by measured rates.

Nothing is trained, downloaded or written. Times are estimates: how long attacks take depends on how
many images survive them, which nobody knows before; so there is a likely, a lowest and a highest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from cembench.evaluation.protocol import Protocol
from cembench.suites.passes import (
    NONE,
    SURVIVE,
    Passes,
    evaluation_passes,
    sample_passes,
    training_passes,
)
from cembench.suites.rates import Rates, evaluation_rates, seconds_of, training_rates
from cembench.suites.reused import Reuse, reuse_of
from cembench.suites.sizes import Images, images_of
from cembench.training.config import Experiment
from cembench.util.errors import CembenchError, said
from cembench.util.lazy import lazy_imports

with lazy_imports():
    from cembench.util.rng import isolated_rng

FEW, MANY = 0.05, 0.95  # shares of images that survive, in the lowest and the highest estimate
SETTLED = 1.5  # seconds of an experiment besides passes: pictures, scores, files
STARTED = 5.0  # seconds of a command: imports, data, tables
FEATURES = 0.04  # seconds of an image in an extractor that is not measured
EXAMPLES = 16  # images that an extractor is measured with


@dataclass(frozen=True)
class Forecast:
    """What one experiment will cost.

    Attributes:
        reuse: what of it is done already.
        training: passes of its training that are left.
        evaluation: likely passes of its evaluation.
        seconds: lowest, likely and highest time of both.
        rates: those of training and of evaluation, if they were measured.
        bytes: of its checkpoint and of the state that it resumes from.
        failure: why nothing can be said.
    """

    reuse: Reuse
    training: Passes = NONE
    evaluation: Passes = NONE
    seconds: tuple[float, float, float] = (0.0, 0.0, 0.0)
    rates: tuple[Rates, Rates] | None = None
    bytes: int = 0
    failure: str = ""


class Forecaster:
    """Forecaster of the experiments of a suite; each architecture is measured once.

    Args:
        protocol: what is measured; None where experiments are only trained.
        device: where they will run.
    """

    def __init__(self, protocol: Protocol | None, device: str) -> None:
        self.protocol, self.device = protocol, torch.device(device)
        self._rates: dict[str, tuple[Rates, Rates]] = {}
        self._features: dict[str, float] = {}

    def all(self, experiments: Mapping[str, Experiment], out: Path) -> dict[str, Forecast]:
        """Return the forecast of each experiment, by name, whose run folders lie in `out`."""
        return {name: self.one(one, out / name) for name, one in experiments.items()}

    def one(self, experiment: Experiment, folder: Path) -> Forecast:
        """Return the forecast of an experiment."""
        reuse = reuse_of(experiment, folder, self.protocol, self.device)
        if reuse.refused or reuse.evaluated:
            return Forecast(reuse, failure=reuse.refused)
        return self._tried(experiment, reuse)

    def evaluation(self, experiment: Experiment) -> Forecast:
        """Return the forecast of the evaluation of a trained network, as if there was no record."""
        return self._tried(experiment, Reuse(experiment.epochs, trained=True))

    def _tried(self, experiment: Experiment, reuse: Reuse) -> Forecast:
        try:
            return self._forecast(experiment, reuse, images_of(experiment.data))
        except Exception as error:  # whatever a data set or a network raises
            why = str(error) if isinstance(error, CembenchError) else said(error)
            return Forecast(reuse, failure=why)

    def _forecast(self, experiment: Experiment, reuse: Reuse, images: Images) -> Forecast:
        held = round(images.training * experiment.validation.fraction)
        training = NONE
        if not reuse.trained:
            training = training_passes(experiment, images.training - held, held, reuse.epochs)
        rates = self._measured(experiment, images)
        protocol = self.protocol and self.protocol.measured_of(experiment.method.kind)
        likely = SURVIVE[experiment.method.attacks]
        parts = [_evaluation(protocol, experiment, images, s) for s in (FEW, likely, MANY)]
        fixed = rates[0].seconds(training) + SETTLED + self._scoring(protocol, images)
        low, middle, high = (fixed + rates[1].seconds(part) for part in parts)
        size = _bytes(experiment, images)
        return Forecast(reuse, training, parts[1], (low, middle, high), rates, size)

    def _measured(self, experiment: Experiment, images: Images) -> tuple[Rates, Rates]:
        of = experiment.model, experiment.optimizer.name, experiment.precision, images
        key = repr((*of, experiment.batch_size, experiment.threat))
        if key not in self._rates:
            training = training_rates(experiment, images, self.device)
            known = Rates(0.0, 0.0)
            if self.protocol is not None:
                known = evaluation_rates(experiment, self.protocol, images, self.device)
            self._rates[key] = training, known
        return self._rates[key]

    def _scoring(self, protocol: Protocol | None, images: Images) -> float:
        """Return the seconds in which the extractor reads samples and their initial images."""
        drawn = None if protocol is None else protocol.samples
        if protocol is None or drawn is None:
            return 0.0
        starts = {sampler.init for sampler in drawn.samplers}
        count = min(drawn.count or images.test, images.test)
        name = drawn.extractor.name
        if name not in self._features:
            self._features[name] = _features(protocol, images, self.device)
        return count * (len(drawn.samplers) + len(starts)) * self._features[name]


def _evaluation(
    protocol: Protocol | None, experiment: Experiment, images: Images, survive: float
) -> Passes:
    """Return the passes of an evaluation, if so many images survive; an encoder only samples."""
    if protocol is None:
        return NONE
    attacked = min(protocol.limit or images.test, images.test)
    if experiment.method.kind == "encoder":
        return sample_passes(protocol, attacked)
    return evaluation_passes(protocol, attacked, images.classes, survive)


def _features(protocol: Protocol, images: Images, device: torch.device) -> float:
    """Return the seconds of an image in the extractor; only one that comes along is measured."""
    extractor = protocol.samples.extractor
    if extractor.name != "lite0":
        return FEATURES
    with isolated_rng(0), torch.no_grad():
        x = (255 * torch.rand(EXAMPLES, 3, *images.shape[1:])).byte().to(device)
        embed = extractor.build(extractor.weights(None), device)
        embed(x)
        return seconds_of(embed, x) / EXAMPLES


def _bytes(experiment: Experiment, images: Images) -> int:
    """Return the bytes of a run folder: weights, those kept, moments of the optimizer, buffer."""
    with torch.device("meta"):
        net = experiment.model.build(images.shape, images.classes)
    size = sum(p.numel() * p.element_size() for p in net.parameters())
    copies = 3 + (2 if experiment.optimizer.name == "adamw" else 1) + (experiment.ema > 0)
    sampler = experiment.method.sampler
    buffered = getattr(sampler, "start", "") == "buffer"
    pixels = images.shape[0] * images.shape[1] * images.shape[2]
    buffer = 4 * pixels * getattr(sampler, "buffer", 0) if buffered else 0
    return copies * size + 2 * buffer

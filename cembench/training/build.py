"""What an experiment begins with: its network, and what its sampler starts from."""

from __future__ import annotations

from torch import Tensor

from cembench.data.resize import resized
from cembench.data.split import Split
from cembench.data.statistics import pixel_statistics
from cembench.models.classifier import Classifier, build_classifier
from cembench.samplers import Sampler
from cembench.samplers.initial import FITTED, GaussianInit, ReplayBuffer, fit_gaussians
from cembench.training.config import Experiment
from cembench.training.pretrained import freeze_features, start_from
from cembench.util.rng import derive, generator_of


def build_model(config: Experiment, training: Split) -> tuple[Classifier, tuple[Tensor, Tensor]]:
    """Return the network, and the pixel means and deviations inside it, a channel each.

    Where the experiment starts from another run, features and pixels are that run's.
    """
    statistics = pixel_statistics(training)
    model = build_classifier(
        config.model, training.shape, len(training.classes), *statistics, config.method.head
    )
    if config.pretrained is not None:
        start_from(model, config.pretrained)
        statistics = model.mean.flatten(), model.std.flatten()
        if config.pretrained.frozen:
            freeze_features(model)
    return model, statistics


def build_seeds(sampler: Sampler | None, data: Split) -> GaussianInit:
    """Return the Gaussians that a sampler starts from or renews its buffer with."""
    start = "gaussian" if sampler is None or sampler.begins not in FITTED else sampler.begins
    return fit_gaussians(start, data, getattr(sampler, "clusters", 1))


def build_buffer(config: Experiment, data: Split, seeds: GaussianInit) -> ReplayBuffer | None:
    """Return the replay buffer of the method's sampler, if any; without labels it has one class."""
    sampler = config.method.sampler
    if sampler is None or sampler.places == 0:
        return None
    generator = generator_of(derive(config.seed, "buffer"), data.images.device)
    renewal = seeds if getattr(sampler, "renewal", None) == "gaussian" else None
    classes = len(data.classes) if config.method.labels == "all" else 1
    return ReplayBuffer(sampler.places, data.shape, classes, generator, renewal)


def load_outside(sampler: Sampler | None, data: Split) -> Split | None:
    """Return the other data set that a sampler starts from, if any, fitted to the images."""
    settings = getattr(sampler, "outside", None)
    if settings is None:
        return None
    return resized(settings.load("train"), data.shape).to(data.images.device)

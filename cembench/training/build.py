"""Network of an experiment, and the metadata of its checkpoint."""

from __future__ import annotations

import logging
import math

import torch
from torch import Tensor, nn

from cembench.data.split import Split
from cembench.data.statistics import pixel_statistics
from cembench.models.classifier import Classifier, build_classifier
from cembench.models.copies.surrogate import Surrogate, build_surrogate
from cembench.models.metadata import CheckpointMetadata
from cembench.training.config import Experiment
from cembench.training.pretrained import freeze_features, start_from
from cembench.training.run_folder import State

log = logging.getLogger("cembench")


def build_model(config: Experiment, training: Split) -> tuple[Classifier, tuple[Tensor, Tensor]]:
    """Return the network, and the pixel means and standard deviations inside it, C values each.

    Where the experiment starts from another run, features and pixel statistics are that run's.

    Raises:
        ConfigError: for a threat model that allows every image of this shape.
    """
    values = math.prod(training.shape)
    for threat in (config.threat, *config.threats):
        threat.ball.require_below_diameter("threat.eps", values)
        if text := threat.ball.caution(values):
            log.warning(text)
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


def followed(config: Experiment, model: nn.Module, images: Tensor) -> Surrogate | None:
    """Return the copy of a network that its samplers follow; None where they follow the network.

    Args:
        config: the experiment.
        model: the network at its first weights.
        images: a few images on its device, which the copy is tried on, N×C×H×W.
    """
    modes = [getattr(sampler, "mode", "eval") for sampler in config.method.samplers.values()]
    if config.compile or not config.method.trainable or "eval" not in modes:
        return None
    return build_surrogate(model, images, config.precision == "bf16")


def memory_format(
    config: Experiment, height: int, batch: int, device: torch.device
) -> torch.memory_format:
    """Return the memory format of images and weights: channels last where it is faster.

    On a CPU (ResNet-18, 32×32 pixels) it is clearly faster in bf16, slightly in fp32 for batches of
    32 or more, and slower for smaller ones: see `cembench bench train`.
    """
    large = batch >= 32 and height >= 32
    fast = large or config.precision == "bf16" or device.type == "cuda"
    return torch.channels_last if fast else torch.contiguous_format


def build_metadata(
    config: Experiment, data: Split, statistics: tuple[Tensor, Tensor], state: State
) -> CheckpointMetadata:
    """Return the metadata of the kept weights.

    Args:
        config: the experiment.
        data: its training images.
        statistics: pixel means and standard deviations inside the network.
        state: the state that holds the weights.
    """
    mean, std = statistics
    values = {
        "kind": config.method.kind,
        "model": config.model,
        "head": config.method.head,
        "shape": list(data.shape),
        "classes": list(data.classes),
        "mean": mean.tolist(),
        "std": std.tolist(),
        "data": config.data,
        "threat": config.threat,
        "method": config.title,
        "seed": config.seed,
        "epoch": state.kept_epoch,
        "finished": state.epoch == config.epochs,
        "fingerprint": state.data,
        "divergences": state.divergences,
        "gradients": state.gradients,
        "labels": config.labels,
        "config": config.dump(),
    }
    return CheckpointMetadata.parse(values)

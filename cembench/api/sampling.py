"""Networks and their samples from Python."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cembench.api.data import parse_data
from cembench.api.subject import subject
from cembench.samplers import Sampler, samplers
from cembench.util.devices import pick_device
from cembench.util.lazy import lazy_imports

with lazy_imports():
    import torch
    from torch import nn

    from cembench.models.checkpoint import load_checkpoint
    from cembench.models.classifier import Classifier
    from cembench.samplers.context import CheckpointImages
    from cembench.samplers.draw import Samples
    from cembench.samplers.to_files import iter_samples


def load(path: str | Path, device: str = "cpu") -> Classifier:
    """Return the network of a checkpoint or run folder, in evaluation mode.

    It maps float images in [0, 1], N×C×H×W, to N×K logits (an encoder: to N×D embeddings of length
    1); `metadata` says what it is.

    Args:
        path: the file, or the folder of its run.
        device: where it goes.

    Raises:
        CembenchError: for a missing, damaged or foreign file.
    """
    return load_checkpoint(Path(path), pick_device(device))[0]


def sample(
    model: str | Path | nn.Module,
    sampler: str | Mapping[str, Any] | Sampler = "rcs",
    count: int = 80,
    *,
    data: Any = None,
    label: int | None = None,
    seed: int = 0,
    device: str = "auto",
    data_root: str | None = None,
    **settings: Any,
) -> Samples:
    """Draw samples, all classes in turn; none is filtered.

    Args:
        model: a checkpoint or run folder, or a network in memory.
        sampler: a name of `cembench list samplers`, or its settings.
        count: the number of samples, N.
        data: what a network in memory classifies: a data set by name, or training images from
            memory as `dataset` takes them. Initial images are fitted on its training images.
        label: the one class to draw.
        seed: decides starts and noise.
        device: where to compute.
        data_root: where the data of a checkpoint lies now.
        settings: of the sampler, such as `steps=40` or `start="noise"`.

    Returns:
        `images` and `starts`, N×C×H×W, float32 in [0, 1]; `labels`, N; `logits`, N×K.

    Raises:
        SamplingError: when the chains leave the finite numbers, or lack what they start from.
    """
    if isinstance(sampler, str):
        sampler = {"name": sampler}
    chosen = sampler if isinstance(sampler, Sampler) else samplers.parse({**sampler, **settings})
    given = None if data is None else parse_data(data, "train")
    source = subject(model, given).moved(data_root)
    images = CheckpointImages(source.file, source.metadata, torch.device(pick_device(device)))
    chunks = iter_samples(source, chosen, images, count, label, seed)
    return Samples.joined([drawn for drawn, _ in chunks])

"""Samples of several networks from the same initial images, a row each; none is selected."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from cembench.models.source import ModelSource
from cembench.samplers import Sampler
from cembench.samplers.context import CheckpointImages
from cembench.samplers.draw import Samples
from cembench.samplers.to_files import iter_samples
from cembench.util.display.image_grid import strips
from cembench.util.errors import CembenchError
from cembench.util.files import write_bytes

SHOWN = 40  # samples in a picture
START = "initial images"


def rows_to_file(
    sources: Sequence[ModelSource],
    sampler: Sampler,
    count: int,
    *,
    picture: Path,
    label: int | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> dict[str, dict[str, float]]:
    """Draw samples of several networks from the same initial images into one picture.

    Args:
        sources: the networks.
        sampler: the sampler.
        count: the number of samples of each.
        picture: PNG of the first samples: a row of initial images, and one for each network.
        label: the one class to draw; all in turn unless given.
        seed: decides initial images and noise.
        device: where to compute.

    Returns:
        The summary of each network, by name.

    Raises:
        CembenchError: when initial images differ, and as `sample_to_files`.
    """
    found: dict[str, Samples] = {}
    for name, source in named(sources).items():
        images = CheckpointImages(source.file, source.metadata, torch.device(device))
        parts = iter_samples(source, sampler, images, count, label, seed)
        found[name] = Samples.joined([drawn for drawn, _ in parts])
        first = next(iter(found.values()))
        if not torch.equal(found[name].starts, first.starts):
            raise CembenchError(
                f"{name} starts from other images than {next(iter(found))}, since '{sampler.init}' "
                "initial images depend on the run; take --init noise"
            )
    classes = sources[0].metadata.classes
    rows = {START: first.starts[:SHOWN]}
    rows |= {name: drawn.images[:SHOWN] for name, drawn in found.items()}
    labels = [classes[label] if label >= 0 else "" for label in first.labels[:SHOWN].tolist()]
    write_bytes(picture, strips(rows, {START: labels}))
    return {name: drawn.summary() for name, drawn in found.items()}


def named(sources: Sequence[ModelSource]) -> dict[str, ModelSource]:
    """Return networks by names that tell them apart."""
    found: dict[str, ModelSource] = {}
    for source in sources:
        name, number = source.name, 2
        while name in found:
            name, number = f"{source.name} ({number})", number + 1
        found[name] = source
    return found

"""Sample files of a checkpoint: a picture, all tensors, and the trajectory of the first chains."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor

from cembench.models.metadata import CheckpointMetadata
from cembench.models.source import ModelSource
from cembench.samplers import Sampler
from cembench.samplers.context import CheckpointImages
from cembench.samplers.draw import Samples, chunks, draw, intended_labels, target_rows
from cembench.samplers.energy import EnergySampler
from cembench.samplers.trajectory import Trace
from cembench.util.display.image_grid import CLASSES, grid
from cembench.util.errors import CembenchError
from cembench.util.files import write_bytes
from cembench.util.files.tensors import tensor_file
from cembench.util.frozen import exact, frozen
from cembench.util.progress import Bar
from cembench.util.rng import derive

SHOWN = 8  # samples of each class in the picture


def sample_to_files(
    source: ModelSource | Path,
    sampler: Sampler,
    count: int,
    *,
    picture: Path,
    label: int | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    tensors: Path | None = None,
    trajectory: Path | None = None,
) -> dict[str, float]:
    """Draw samples of all classes in turn, or of one, and write them to files chunk by chunk.

    Args:
        source: a checkpoint, the run folder that holds one, or a network in memory.
        sampler: the sampler.
        count: the number of samples.
        picture: PNG of the first samples of each class next to their initial images.
        label: the one class to draw; all in turn unless given.
        seed: decides initial images and noise.
        device: where to compute.
        tensors: safetensors file of all images and initial images (`starts`; both N×C×H×W,
            float32) and labels.
        trajectory: trajectory of the first chains: a `.gif`, or a strip in a `.png`.

    Returns:
        The means of `Samples.summary`.

    Raises:
        CembenchError: when the sampler needs data or a replay buffer that is not there, when values
            are not finite, or when a file cannot be written.
    """
    trace = _trace(trajectory, sampler)
    source = ModelSource.at(source) if isinstance(source, Path) else source
    metadata = source.metadata
    shown: list[Samples] = []
    targets: list[Tensor] = []
    sums: dict[str, float] = {}
    with ExitStack() as stack:
        file = None
        if tensors is not None:
            file = stack.enter_context(tensor_file(tensors, _shapes(count, metadata)))
        done = 0
        images = CheckpointImages(source.file, metadata, torch.device(device))
        for drawn, rows in iter_samples(source, sampler, images, count, label, seed, trace):
            if file is not None:
                for name, values in file.items():
                    values[done : done + len(drawn.labels)] = getattr(drawn, name).numpy()
            for key, value in drawn.summary().items():
                sums[key] = sums.get(key, 0.0) + value * len(drawn.labels)
            if done < SHOWN * len(metadata.classes):
                small = drawn.labels < CLASSES
                shown.append(drawn.chosen(small))
                targets.append(rows.cpu()[small] if len(rows) else rows)
            done += len(drawn.labels)
    first = Samples.joined(shown)
    panels = {"starts": first.starts, "samples": first.images}
    if sampler.target_type == "image":
        panels["target images"] = images.data.pixels(torch.cat(targets)).cpu()
    write_bytes(picture, grid(panels, first.labels, metadata.classes, SHOWN))
    if trace is not None and trajectory is not None:
        write_bytes(trajectory, trace.render(metadata.classes, trajectory.suffix))
    return {key: value / count for key, value in sums.items()}


def iter_samples(
    source: ModelSource,
    sampler: Sampler,
    images: CheckpointImages,
    count: int,
    label: int | None = None,
    seed: int = 0,
    trace: Trace | None = None,
) -> Iterator[tuple[Samples, Tensor]]:
    """Yield chunks of samples, and rows of the training images that they approach, if any.

    Args:
        source: the network; it is frozen while this iterates.
        sampler: the sampler.
        images: initial images, and the device.
        count: the number of samples in all.
        label: the one class to draw; all in turn unless given.
        seed: decides initial images and noise.
        trace: records the first chains.
    """
    title = f"{sampler.name} {images.metadata.data.title}"
    model = source.load(images.device)
    with Bar(title, count) as bar, frozen(model), exact():
        for number, y in enumerate(chunks(sampler, count, len(images.metadata.classes))):
            y = (y if label is None else torch.full_like(y, label)).to(images.device)
            stream, visit = derive(seed, number), None
            if trace is not None and number == 0:
                visit = trace.follow(intended_labels(sampler, y, images, stream))
            rows = torch.empty(0)
            if sampler.target_type == "image":
                rows = target_rows(sampler, y, images, stream)
            yield draw(model, sampler, y, images, stream, visit).cpu(), rows
            bar.advance(len(y))


def _trace(path: Path | None, sampler: Sampler) -> Trace | None:
    if path is None:
        return None
    if path.suffix not in (".gif", ".png"):
        raise CembenchError(f"--trajectory {path}: give a .gif, or a .png for a strip")
    if not isinstance(sampler, EnergySampler):
        raise CembenchError(f"--trajectory: {sampler.name} is an attack; use an energy sampler")
    return Trace(sampler)


def _shapes(count: int, metadata: CheckpointMetadata) -> dict[str, tuple[str, tuple[int, ...]]]:
    images = ("float32", (count, *metadata.shape))
    return {"images": images, "starts": images, "labels": ("int64", (count,))}

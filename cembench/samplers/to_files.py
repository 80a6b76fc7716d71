"""Samples of a checkpoint as files: a picture, all tensors, and how chains move."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor

from cembench.models.metadata import CheckpointMetadata
from cembench.models.source import ModelSource
from cembench.samplers import Sampler
from cembench.samplers.context import Origins
from cembench.samplers.draw import Samples, asked, chunks, draw, toward
from cembench.samplers.energy import EnergySampler
from cembench.samplers.trajectory import Trace
from cembench.util.errors import CembenchError
from cembench.util.files import write_bytes
from cembench.util.frozen import exact, frozen
from cembench.util.image_grid import grid
from cembench.util.progress import Bar
from cembench.util.rng import derive
from cembench.util.tensors import tensor_file

SHOWN = 8


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
    """Draw samples of all classes in turn, or of one, chunk by chunk into files.

    Args:
        source: a checkpoint, the run folder that holds one, or a network in memory.
        sampler: what to climb, from where, and how.
        count: the number of samples.
        picture: a PNG of the first samples of each class beside their starts.
        label: the one class to draw, if not all.
        seed: decides starts and noise.
        device: where to compute.
        tensors: a safetensors file of all images, starts (N×C×H×W, float32) and labels.
        trajectory: how the first chains move: a `.gif`, or a strip in a `.png`.

    Returns:
        How the network itself sees its samples, on average.

    Raises:
        CembenchError: when the sampler needs data or a buffer that is not there, or leaves the
            finite numbers, or when a file cannot be written.
    """
    trace = _trace(trajectory, sampler)
    source = ModelSource.at(source) if isinstance(source, Path) else source
    metadata = source.metadata
    shown: list[Samples] = []
    goals: list[Tensor] = []
    sums: dict[str, float] = {}
    with ExitStack() as stack:
        kept = None
        if tensors is not None:
            kept = stack.enter_context(tensor_file(tensors, _shapes(count, metadata)))
        done = 0
        origins = Origins(source.file, metadata, torch.device(device))
        for drawn, rows in iter_samples(source, sampler, origins, count, label, seed, trace):
            if kept is not None:
                for name, values in kept.items():
                    values[done : done + len(drawn.labels)] = getattr(drawn, name).numpy()
            for key, value in drawn.summary().items():
                sums[key] = sums.get(key, 0.0) + value * len(drawn.labels)
            if done < SHOWN * len(metadata.classes):
                shown.append(drawn)
                goals.append(rows)
            done += len(drawn.labels)
    first = Samples.joined(shown)
    panels = {"starts": first.starts, "samples": first.images}
    if sampler.reads == "images":
        panels["images gone for"] = origins.data.pixels(torch.cat(goals)).cpu()
    write_bytes(picture, grid(panels, first.labels, metadata.classes, SHOWN))
    if trace is not None and trajectory is not None:
        write_bytes(trajectory, trace.render(metadata.classes, trajectory.suffix))
    return {key: value / count for key, value in sums.items()}


def iter_samples(
    source: ModelSource,
    sampler: Sampler,
    origins: Origins,
    count: int,
    label: int | None = None,
    seed: int = 0,
    trace: Trace | None = None,
) -> Iterator[tuple[Samples, Tensor]]:
    """Yield chunks of samples, and the numbers of the training images that each went for, if any.

    Args:
        source: the network; between chunks it is frozen.
        sampler: what to climb.
        origins: from where, and on which device.
        count: the number of samples in all.
        label: the one class to draw, if not all in turn.
        seed: decides starts and noise.
        trace: follows the first chains.
    """
    title = f"{sampler.name} {origins.metadata.data.title}"
    model = source.load(origins.device)
    with Bar(title, count) as bar, frozen(model), exact():
        for number, y in enumerate(chunks(sampler, count, len(origins.metadata.classes))):
            y = (y if label is None else torch.full_like(y, label)).to(origins.device)
            stream, visit = derive(seed, number), None
            if trace is not None and number == 0:
                visit = trace.follow(asked(sampler, y, origins, stream))
            images = sampler.reads == "images"
            rows = toward(sampler, y, origins, stream) if images else torch.empty(0)
            yield draw(model, sampler, y, origins, stream, visit).cpu(), rows
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

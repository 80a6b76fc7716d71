"""Drawing samples from any checkpoint: class-balanced, never filtered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from cembench import energy
from cembench.checkpoint import Passport, checkpoint_file, load_checkpoint
from cembench.data.split import Split
from cembench.errors import CembenchError
from cembench.guard import derive, exact, frozen, generator_of
from cembench.progress import Bar
from cembench.samplers import Sampler, Scene
from cembench.samplers.energy import EnergySampler
from cembench.samplers.starts import GaussianSeeds, ReplayBuffer

BATCH = 256


@dataclass(frozen=True)
class Samples:
    """What was drawn.

    Attributes:
        images: N×C×H×W, on the CPU, in the order of the labels.
        starts: where their chains began.
        labels: the classes asked for, N.
        logits: the network's own, for images and for starts, N×K each.
    """

    images: Tensor
    starts: Tensor
    labels: Tensor
    logits: Tensor
    start_logits: Tensor

    def summary(self) -> dict[str, float]:
        """Return how the network itself sees its samples, which says nothing of their quality."""
        before, after = energy.marginal(self.start_logits), energy.marginal(self.logits)
        return {
            "own_acc_start": float((self.start_logits.argmax(1) == self.labels).float().mean()),
            "own_acc": float((self.logits.argmax(1) == self.labels).float().mean()),
            "lse_start": float(before.mean()),
            "lse": float(after.mean()),
        }


def draw_samples(
    checkpoint: Path,
    sampler: Sampler,
    count: int,
    *,
    label: int | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> tuple[Samples, Passport]:
    """Draw samples of all classes in turn, or of one.

    Args:
        checkpoint: a `model.safetensors`, or the run folder that holds one.
        sampler: what to climb, from where, and how.
        count: the number of samples.
        label: the one class to draw, if not all.
        seed: decides starts and noise.
        device: where to compute.

    Raises:
        CembenchError: when the sampler needs data or a buffer that is not there, or leaves the
            finite numbers.
    """
    file = checkpoint_file(checkpoint)
    model, passport = load_checkpoint(file, device)
    classes = len(passport.classes)
    y = (torch.arange(count, device=device) % classes).sort().values
    if label is not None:
        y = torch.full_like(y, label)
    generator = generator_of(derive(seed, "samples"), device)
    start = sampler.start if isinstance(sampler, EnergySampler) else "data"
    wanted = start in ("gaussian", "data")
    data = passport.data.load("train").to(torch.device(device)) if wanted else None
    if data is not None:
        passport.check(data)
    scene = Scene(
        passport.threat,
        generator,
        seeds=None if data is None else GaussianSeeds(data),
        buffer=_buffer(file, passport, generator) if start == "buffer" else None,
    )
    parts = []
    with Bar(f"{sampler.name} {passport.data.title}", count) as bar, frozen(model), exact():
        for batch in y.split(BATCH):
            x = _images(data, batch, passport, generator)
            parts.append([part.cpu() for part in _draw(model, sampler, x, batch, scene)])
            bar.advance(len(batch))
    images, starts, logits, start_logits = (torch.cat(p) for p in zip(*parts, strict=True))
    return Samples(images, starts, y.cpu(), logits, start_logits), passport


def _draw(
    model: nn.Module, sampler: Sampler, x: Tensor, y: Tensor, scene: Scene
) -> Iterator[Tensor]:
    if isinstance(sampler, EnergySampler):
        start, _ = sampler.begin(x, y, scene)
        images = sampler.climb(model, start, y, scene, visit=_finite)
    else:
        start, images = x, sampler.draw(model, x, y, scene)
    yield from (images, start)
    with torch.no_grad():
        yield from (model(images).float(), model(start).float())


def _finite(step: int, rows: Tensor, x: Tensor, out: Tensor) -> None:
    if not bool(x.isfinite().all() & out.isfinite().all()):
        raise CembenchError(f"chains left the finite numbers at step {step}; lower step_size")


def _images(
    data: Split | None, y: Tensor, passport: Passport, generator: torch.Generator
) -> Tensor:
    """Return a random training image of each label, or blanks where none is needed."""
    if data is None:
        return torch.zeros(len(y), *passport.shape, device=y.device)
    scores = torch.rand(len(y), len(data), generator=generator, device=y.device)
    scores[y[:, None] != data.labels] = -1
    return data.pixels(scores.argmax(1))


def _buffer(file: Path, passport: Passport, generator: torch.Generator) -> ReplayBuffer:
    path = file.parent / "buffer.safetensors"
    try:
        images = load_file(path)["images"].to(generator.device)
    except (OSError, KeyError, SafetensorError) as error:
        raise CembenchError(f"{path}: no replay buffer; start from gaussian or noise") from error
    classes = len(passport.classes)
    if list(images.shape[1:]) != passport.shape or len(images) % classes:
        raise CembenchError(f"{path}: a replay buffer of another network")
    buffer = ReplayBuffer(classes, tuple(passport.shape), classes, generator)
    buffer.images, buffer.places = images, len(images) // classes
    return buffer

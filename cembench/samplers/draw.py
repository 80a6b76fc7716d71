"""Samples of a checkpoint: balanced over classes, unfiltered, drawn in chunks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor, nn

from cembench import energy
from cembench.energy.ascent import Visit
from cembench.models.gradient import missing_gradient
from cembench.samplers import FOR_TRAINING, FROM_DATA, Sampler
from cembench.samplers.context import CheckpointImages
from cembench.samplers.energy import EnergySampler
from cembench.util.display.image_grid import grid
from cembench.util.display.png import Png
from cembench.util.errors import CembenchError, SamplingError
from cembench.util.frozen import proposing, reduced
from cembench.util.rng import derive, generator_of

LOOK = 8  # steps between two looks at values that may not be finite
CHUNK = 256
SCORES = 1 << 24  # random numbers that are drawn at once, 64 MiB


@dataclass(frozen=True)
class Samples:
    """Samples with their initial images.

    Attributes:
        images: N×C×H×W.
        starts: the initial images of their chains, N×C×H×W.
        labels: the intended classes, N; −1 for none.
        logits: outputs of the network on `images`, N×K; N×0 for an encoder.
        start_logits: the same on `starts`.
    """

    images: Tensor
    starts: Tensor
    labels: Tensor
    logits: Tensor
    start_logits: Tensor

    def __repr__(self) -> str:
        shape = "×".join(map(str, self.images.shape[1:]))
        summary = ", ".join(f"{key} {value:.3g}" for key, value in self.summary().items())
        kind, told = type(self).__name__, f"{': ' * bool(summary)}{summary}"
        return f"<{kind} {len(self.images)} images of {shape}{told}>"

    def _repr_png_(self) -> bytes:
        return bytes(self.grid())

    def grid(self, classes: Sequence[str] | None = None) -> Png:
        """Return a picture of initial images and samples, the first ones of each class.

        A notebook shows it; its `save` writes a file.

        Args:
            classes: their names; numbers unless given.
        """
        names = classes or list(map(str, range(int(self.labels.max()) + 1)))
        panels = {"starts": self.starts, "samples": self.images}
        return Png(grid(panels, self.labels.cpu(), list(names)))

    def summary(self) -> dict[str, float]:
        """Return the network's own view of its samples, which is no measure of their quality.

        `lse` is the mean log p(x) up to a constant; `own_acc` the share of samples classified as
        intended. Keys that end in `_start` are about the initial images.
        """
        found: dict[str, float] = {}
        if self.logits.shape[1] == 0:
            return found
        for name, logits in (("_start", self.start_logits), ("", self.logits)):
            found[f"lse{name}"] = float(energy.marginal(logits).mean())
            if self.conditional:
                found[f"own_acc{name}"] = accuracy(logits, self.labels)
        return found

    @property
    def conditional(self) -> bool:
        """Whether every sample has an intended class."""
        return not bool((self.labels < 0).any())

    def cpu(self) -> Self:
        """Return the same samples on the CPU."""
        return type(self)(*(part.cpu() for part in vars(self).values()))

    def chosen(self, rows: Tensor | slice) -> Self:
        """Return some of the samples."""
        return type(self)(*(part[rows] for part in vars(self).values()))

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Return several chunks as one."""
        columns = zip(*(vars(part).values() for part in parts), strict=True)
        return cls(*(torch.cat(column) for column in columns))


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Return the share of images whose largest logit is that of their intended class."""
    return float((logits.argmax(1) == labels).float().mean())


def chunks(sampler: Sampler, count: int, classes: int, size: int = CHUNK) -> Iterator[Tensor]:
    """Yield labels in chunks, all classes in turn, so that classes are balanced for every count.

    Labels are −1 for a sampler without target classes. A chunk is never a single sample, unless
    `count` is 1, since coupled samplers need two: the last sample is drawn with the chunk before.
    """
    starts = [start for start in range(0, count, size) if start == 0 or count - start > 1]
    for start, end in pairwise([*starts, count]):
        y = torch.arange(start, end) % classes
        yield y if sampler.target_type == "class" else torch.full_like(y, -1)


def draw(
    model: nn.Module,
    sampler: Sampler,
    y: Tensor,
    images: CheckpointImages,
    seed: int,
    visit: Visit | None = None,
    surrogate: nn.Module | None = None,
) -> Samples:
    """Draw one chunk of samples.

    Initial images depend only on the seed and on their kind, so samplers with the same kind of
    initial images start from the same ones.

    Args:
        model: a frozen network in evaluation mode.
        sampler: the sampler.
        y: the classes to draw, N, on the device of the network; −1 for any.
        images: initial images.
        seed: decides initial images and noise; give each chunk its own.
        visit: called at every iterate of energy samplers, as in `ascend`.
        surrogate: the network whose gradients are followed: a fast copy made by an engine. The
            logits of the samples are always those of `model`.

    Raises:
        SamplingError: when the sampler needs logits and the network is an encoder, when it needs a
            replay buffer, a second sample or a gradient and there is none, or when values are not
            finite.
    """
    _require_suitable(sampler, y, images)
    surrogate = model if surrogate is None else surrogate
    try:
        return _draw(model, sampler, y, images, seed, visit, surrogate)
    except (SamplingError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a plugin's sampler may fail on such a network in any way
        reason = missing_gradient(surrogate, torch.zeros(2, *images.shape, device=y.device))
        if not reason:
            raise
        raise SamplingError(
            f"sampler {sampler.name}: not applicable, the network has no gradient: {reason}"
        ) from error


def _draw(
    model: nn.Module,
    sampler: Sampler,
    y: Tensor,
    images: CheckpointImages,
    seed: int,
    visit: Visit | None,
    surrogate: nn.Module,
) -> Samples:
    generator = generator_of(derive(seed, "starts", sampler.init), y.device)
    context = images.context(sampler, generator)
    x, target = torch.zeros(len(y), *images.shape, device=y.device), y
    if sampler.init in FROM_DATA or sampler.target_type == "image":
        rows = target_rows(sampler, y, images, seed)
        x = images.data.pixels(rows)
        target = rows if sampler.target_type == "image" else y
        y = intended_labels(sampler, y, images, seed)
    noisy = replace(context, generator=generator_of(derive(seed, "noise"), y.device))
    if isinstance(sampler, EnergySampler):
        start, _ = sampler.initial_images(x, y, context)
        ends = _EndLogits(sampler, start, visit)
        with proposing():
            found = sampler.ascend(surrogate, start, target, noisy, visit=ends.visit)
            same = surrogate is model and not reduced(start)
        if sampler.target_type == "class" and same:
            return Samples(found, start, y, ends.last, ends.first)
    else:
        with proposing():
            start, found = x, sampler.draw(surrogate, x, y, noisy)
    out = Samples(found, start, y, _logits(model, found, images), _logits(model, start, images))
    _require_finite(found, out.logits, f"sampler {sampler.name}: samples are not finite")
    return out


def intended_labels(sampler: Sampler, y: Tensor, images: CheckpointImages, seed: int) -> Tensor:
    """Return the intended classes of samples: y, or the classes of their target images."""
    if sampler.target_type != "image":
        return y
    return images.data.labels[target_rows(sampler, y, images, seed)]


def target_rows(sampler: Sampler, y: Tensor, images: CheckpointImages, seed: int) -> Tensor:
    """Return rows of the training images, N, that samples of labels y start from or approach.

    They are random images of those labels, or the one image that the sampler names.

    Raises:
        CembenchError: when there is no such image.
    """
    given = sampler.needs().image
    if given is not None and given >= len(images.data):
        raise CembenchError(f"image: {given} of {len(images.data)} training images")
    if given is not None:
        return torch.full_like(y, given)
    generator = generator_of(derive(seed, "images"), y.device)
    together = max(1, SCORES // len(images.data))
    return torch.cat(
        [_random_row(part, images.data.labels, generator) for part in y.split(together)]
    )


def _random_row(y: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    scores = torch.rand(len(y), len(labels), generator=generator, device=y.device)
    scores[(y[:, None] >= 0) & (y[:, None] != labels)] = -1
    return scores.argmax(1)


def _require_suitable(sampler: Sampler, y: Tensor, images: CheckpointImages) -> None:
    if sampler.own_threats:
        raise SamplingError(f"sampler {sampler.name} {FOR_TRAINING}")
    if sampler.target_type == "class" and images.metadata.kind == "encoder":
        raise SamplingError(
            f"sampler {sampler.name} needs logits, and an encoder has none; "
            "take maxent or infonce, or fit a head with `cembench probe`"
        )
    if sampler.coupled and len(y) < 2:
        raise SamplingError(f"sampler {sampler.name} needs two samples or more drawn together")


@torch.no_grad()
def _logits(model: nn.Module, x: Tensor, images: CheckpointImages) -> Tensor:
    encoder = images.metadata.kind == "encoder"
    return x.new_zeros(len(x), 0) if encoder else model(x).float()


class _EndLogits:
    """Hook of `ascend` that keeps the first and last logits, and refuses values not finite.

    It looks only every few steps, since a look waits for a device that computes ahead.
    """

    def __init__(self, sampler: EnergySampler, start: Tensor, visit: Visit | None) -> None:
        self.inner, self.steps = visit, sampler.steps
        self.advice = f"lower step_size, which is {sampler.alpha(start):g}"
        self.name = sampler.name
        self.first = self.last = torch.empty(0)
        self._finite: list[Tensor] = []

    def visit(self, step: int, rows: Tensor, x: Tensor, out: Tensor) -> Tensor | None:
        """Check an iterate and keep its logits, then call the inner hook."""
        self._finite.append(x.isfinite().all() & out.isfinite().all())
        if step % LOOK == 0 or step == self.steps:
            self._require_finite(step)
        self.first, self.last = (out.float() if step == 0 else self.first), out.float()
        return None if self.inner is None else self.inner(step, rows, x, out)

    def _require_finite(self, last: int) -> None:
        found, self._finite = torch.stack(self._finite).tolist(), []
        if all(found):
            return
        step = last - len(found) + 1 + found.index(False)
        if step == 0:
            reason = "the output on the initial images is not finite"
        else:
            reason = f"values are not finite at step {step}; {self.advice}"
        raise SamplingError(f"sampler {self.name}: {reason}")


def _require_finite(images: Tensor, logits: Tensor, failure: str) -> None:
    if not bool(images.isfinite().all() & logits.isfinite().all()):
        raise SamplingError(failure)

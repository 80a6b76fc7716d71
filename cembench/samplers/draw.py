"""Drawing samples from any checkpoint: class-balanced, never filtered, chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from cembench import energy
from cembench.energy.ascent import Visit
from cembench.samplers import Sampler
from cembench.samplers.context import Origins
from cembench.samplers.energy import EnergySampler
from cembench.util.errors import SamplingError
from cembench.util.rng import derive, generator_of

CHUNK = 256


@dataclass(frozen=True)
class Samples:
    """What was drawn.

    Attributes:
        images: N×C×H×W.
        starts: where their chains began.
        labels: the classes asked for, N; −1 where none was.
        logits: the network's own, for images and for starts, N×K each; N×0 from an encoder.
    """

    images: Tensor
    starts: Tensor
    labels: Tensor
    logits: Tensor
    start_logits: Tensor

    def summary(self) -> dict[str, float]:
        """Return how the network itself sees its samples, which says nothing of their quality."""
        found: dict[str, float] = {}
        if self.logits.shape[1] == 0:
            return found
        for name, logits in (("_start", self.start_logits), ("", self.logits)):
            found[f"lse{name}"] = float(energy.marginal(logits).mean())
            if self.asked:
                right = logits.argmax(1) == self.labels
                found[f"own_acc{name}"] = float(right.float().mean())
        return found

    @property
    def asked(self) -> bool:
        """Whether classes were asked for."""
        return not bool((self.labels < 0).any())

    def cpu(self) -> Samples:
        """Return the same on the CPU."""
        return Samples(*(part.cpu() for part in vars(self).values()))

    @staticmethod
    def joined(parts: list[Samples]) -> Samples:
        """Return several as one."""
        columns = zip(*(vars(part).values() for part in parts), strict=True)
        return Samples(*(torch.cat(column) for column in columns))


def chunks(sampler: Sampler, count: int, classes: int, size: int = CHUNK) -> Iterator[Tensor]:
    """Return labels in chunks, all classes in turn, so that every count is balanced.

    They are −1 for a sampler that asks for no class. One sample alone is drawn with the chunk
    before, since it has nothing to differ from.
    """
    starts = [start for start in range(0, count, size) if start == 0 or count - start > 1]
    for start, end in pairwise([*starts, count]):
        y = torch.arange(start, end) % classes
        yield y if sampler.reads == "logits" else torch.full_like(y, -1)


def draw(
    model: nn.Module,
    sampler: Sampler,
    y: Tensor,
    origins: Origins,
    seed: int,
    visit: Visit | None = None,
    climber: nn.Module | None = None,
) -> Samples:
    """Draw one chunk of samples.

    Starts depend on the seed and the kind of start alone, so samplers that start alike start from
    the same images.

    Args:
        model: a frozen network in evaluation mode.
        sampler: what to climb, and how.
        y: the classes to draw, N, on the device of the network; −1 for any.
        origins: what chains can start from.
        seed: decides starts and noise; each chunk wants its own.
        visit: looks at every iterate of energy samplers, as in `ascend`.
        climber: what is climbed: a copy of the network that an engine prepared. How samples are
            seen is asked of the network itself.

    Raises:
        SamplingError: when the sampler needs logits and the network is an encoder, needs a buffer
            or a second sample that is not there, or leaves the finite numbers.
    """
    if sampler.reads == "logits" and origins.metadata.kind == "encoder":
        raise SamplingError(
            f"sampler {sampler.name} climbs logits, and an encoder has none; "
            "take maxent or infonce, or fit a head with `cembench probe`"
        )
    if sampler.coupled and len(y) < 2:
        raise SamplingError(f"sampler {sampler.name} needs two samples or more drawn together")
    climber = model if climber is None else climber
    generator = generator_of(derive(seed, "starts", sampler.begins), y.device)
    scene = origins.scene(sampler, generator)
    x, target = origins.blank(len(y)), y
    if sampler.begins == "data" or sampler.reads == "images":
        rows = toward(sampler, y, origins, seed)
        x = origins.data.pixels(rows)
        target = rows if sampler.reads == "images" else y
        y = asked(sampler, y, origins, seed)
    noisy = replace(scene, generator=generator_of(derive(seed, "noise"), y.device))
    if isinstance(sampler, EnergySampler):
        start, _ = sampler.begin(x, y, scene)
        ends = _Ends(sampler, start, visit)
        images = sampler.climb(climber, start, target, noisy, visit=ends.visit)
        if sampler.reads == "logits" and climber is model:
            return Samples(images, start, y, ends.last, ends.first)
    else:
        start, images = x, sampler.draw(climber, x, y, noisy)
    out = Samples(images, start, y, _logits(model, images, origins), _logits(model, start, origins))
    _require_finite(images, out.logits, f"sampler {sampler.name}: samples are not finite")
    return out


def asked(sampler: Sampler, y: Tensor, origins: Origins, seed: int) -> Tensor:
    """Return what samples of labels y should be read as: y, or the classes of their images."""
    if sampler.reads != "images":
        return y
    return origins.data.labels[toward(sampler, y, origins, seed)]


def toward(sampler: Sampler, y: Tensor, origins: Origins, seed: int) -> Tensor:
    """Return the numbers of the training images, N, that samples of labels y begin or end with."""
    return origins.rows(sampler, y, generator_of(derive(seed, "images"), y.device))


@torch.no_grad()
def _logits(model: nn.Module, images: Tensor, origins: Origins) -> Tensor:
    encoder = origins.metadata.kind == "encoder"
    return images.new_zeros(len(images), 0) if encoder else model(images).float()


class _Ends:
    """A hook that keeps the logits of both ends, and stops where numbers are not finite."""

    def __init__(self, sampler: EnergySampler, start: Tensor, visit: Visit | None) -> None:
        self.inner = visit
        self.failure = f"lower step_size, which is {sampler.alpha(start):g}"
        self.name = sampler.name
        self.first = self.last = torch.empty(0)

    def visit(self, step: int, rows: Tensor, x: Tensor, out: Tensor) -> Tensor | None:
        """Look at an iterate."""
        left = f"sampler {self.name}: chains left the finite numbers at step {step}; {self.failure}"
        if step == 0:
            left = f"sampler {self.name}: what the network says of the starts is not finite"
        _require_finite(x, out, left)
        self.first, self.last = (out.float() if step == 0 else self.first), out.float()
        return None if self.inner is None else self.inner(step, rows, x, out)


def _require_finite(images: Tensor, logits: Tensor, failure: str) -> None:
    if not bool(images.isfinite().all() & logits.isfinite().all()):
        raise SamplingError(failure)

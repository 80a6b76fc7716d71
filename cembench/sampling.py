"""Drawing samples from any checkpoint: class-balanced, never filtered, chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from cembench import energy
from cembench.ascent import Visit
from cembench.checkpoint import Passport
from cembench.data.fit import fitted
from cembench.data.split import Split
from cembench.errors import CembenchError, SamplingError
from cembench.guard import derive, generator_of
from cembench.samplers import Sampler, Scene
from cembench.samplers.energy import EnergySampler
from cembench.samplers.starts import FITTED, GaussianSeeds, ReplayBuffer, fitted_seeds
from cembench.seal import read_sealed
from cembench.threat import Threat

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


class Origins:
    """Everything that chains of a checkpoint can start from, read when it is first asked for.

    Seeds are fitted on the images that training used: not on those held out.
    """

    def __init__(
        self,
        file: Path,
        passport: Passport,
        device: torch.device,
        threat: Threat | None = None,
    ) -> None:
        self.buffer_file = buffer_of(file)
        self.passport = passport
        self.device = device
        self.threat = threat or passport.threat
        self._seeds: dict[tuple[str, int], GaussianSeeds] = {}

    @cached_property
    def data(self) -> Split:
        """The training images."""
        return self.passport.training_split()[0].to(self.device)

    def seeds(self, start: str, clusters: int) -> GaussianSeeds:
        """Return the Gaussians of the training images, fitted once."""
        if (start, clusters) not in self._seeds:
            self._seeds[start, clusters] = fitted_seeds(start, self.data, clusters)
        return self._seeds[start, clusters]

    @cached_property
    def buffer(self) -> ReplayBuffer:
        """The replay buffer that training left.

        Raises:
            SamplingError: when there is none, or it is not this network's.
        """
        path = self.buffer_file
        try:
            images = load(read_sealed(path))["images"].to(self.device)
        except (CembenchError, KeyError, SafetensorError) as error:
            raise SamplingError(
                f"{path}: no replay buffer, or damaged; start from gaussian or noise"
            ) from error
        classes = 1 if self.passport.kind == "encoder" else len(self.passport.classes)
        if list(images.shape[1:]) != self.passport.shape or len(images) % classes:
            raise SamplingError(f"{path}: a replay buffer of another network")
        return ReplayBuffer.of(images, classes)

    def scene(self, sampler: Sampler, generator: torch.Generator) -> Scene:
        """Return what a sampler needs, and nothing that it does not."""
        start = sampler.begins
        outside = getattr(sampler, "outside", None) if start == "outside" else None
        fitted_on = getattr(sampler, "renewal", "") if start == "buffer" else start
        seeds = None
        if fitted_on in FITTED:
            seeds = self.seeds(fitted_on, getattr(sampler, "clusters", 1))
        return Scene(
            self.threat,
            generator,
            seeds=seeds,
            buffer=self.buffer if start == "buffer" else None,
            outside=None if outside is None else self._outside(outside),
            data=self.data if getattr(sampler, "others", 0) else None,
        )

    def rows(self, sampler: Sampler, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return the numbers of training images, N: random ones of labels y, or the one given.

        Raises:
            CembenchError: when the given one is not there.
        """
        given = getattr(sampler, "image", None)
        if given is not None and given >= len(self.data):
            raise CembenchError(f"image: {given} of {len(self.data)} training images")
        if given is not None:
            return torch.full_like(y, given)
        scores = torch.rand(len(y), len(self.data), generator=generator, device=y.device)
        scores[(y[:, None] >= 0) & (y[:, None] != self.data.labels)] = -1
        return scores.argmax(1)

    def blank(self, count: int) -> Tensor:
        """Return black images, for samplers that look at their shape alone."""
        return torch.zeros(count, *self.passport.shape, device=self.device)

    def _outside(self, settings: object) -> Split:
        from cembench.data import DataSettings

        assert isinstance(settings, DataSettings)
        return fitted(settings.load("train"), self.passport.shape).to(self.device)


def buffer_of(file: Path) -> Path:
    """Return where the replay buffer of a checkpoint lies: beside it, and with its name."""
    stem = "" if file.name == "model.safetensors" else f"{file.stem}."
    return file.parent / f"{stem}buffer.safetensors"


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

    Raises:
        SamplingError: when the sampler needs logits and the network is an encoder, needs a buffer
            or a second sample that is not there, or leaves the finite numbers.
    """
    if sampler.reads == "logits" and origins.passport.kind == "encoder":
        raise SamplingError(
            f"sampler {sampler.name} climbs logits, and an encoder has none; "
            "take maxent or infonce, or fit a head with `cembench probe`"
        )
    if sampler.coupled and len(y) < 2:
        raise SamplingError(f"sampler {sampler.name} needs two samples or more drawn together")
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
        images = sampler.climb(model, start, target, noisy, visit=ends.visit)
        if sampler.reads == "logits":
            return Samples(images, start, y, ends.last, ends.first)
    else:
        start, images = x, sampler.draw(model, x, y, noisy)
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
    encoder = origins.passport.kind == "encoder"
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
        _require_finite(x, out, left)
        self.first, self.last = (out.float() if step == 0 else self.first), out.float()
        return None if self.inner is None else self.inner(step, rows, x, out)


def _require_finite(images: Tensor, logits: Tensor, failure: str) -> None:
    if not bool(images.isfinite().all() & logits.isfinite().all()):
        raise SamplingError(failure)

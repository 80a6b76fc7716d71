"""Passes through a network: counted by size of batch, and what they cost on the bare network."""

from __future__ import annotations

import statistics
import threading
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import SerializeAsAny
from torch import Tensor, nn

from cembench.bench.machine import clock
from cembench.models.engine import EXAMPLES, Engine, engines
from cembench.util.frozen import frozen

REPEATS = 3  # of a pass each time that it is timed


class Passes:
    """The passes that were made: batches by number of images and by whether a gradient followed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # several threads may attack the same network
        self.batches: Counter[tuple[int, bool]] = Counter()

    def add(self, images: int, gradient: bool) -> None:
        """Count a batch."""
        with self._lock:
            self.batches[images, gradient] += 1

    def images(self, gradient: bool) -> int:
        """Return how many images went through, with a gradient or without."""
        return sum(n * size for (size, kind), n in self.batches.items() if kind == gradient)

    def operations(self, forward: float, both: float) -> float:
        """Return the floating-point operations, of which one image takes so many."""
        return forward * self.images(False) + both * self.images(True)


class Counted(nn.Module):
    """Network whose passes are counted."""

    def __init__(self, network: nn.Module, passes: Passes) -> None:
        super().__init__()
        self.network, self.passes = network, passes

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of the network."""
        out: Tensor = self.network(x)
        self.passes.add(len(x), out.requires_grad)
        return out


class CountedEngine(Engine):
    """An engine whose surrogates are counted together with the `Counted` network.

    Attributes:
        inner: the engine.
    """

    name: ClassVar[str] = "counted"
    inner: Annotated[SerializeAsAny[Engine], engines.field()]

    def prepare(self, model: nn.Module, example: Tensor) -> nn.Module:
        """Return the surrogate of the engine, counted."""
        assert isinstance(model, Counted)
        surrogate = self.inner.prepare(model.network, example)
        return model if surrogate is model.network else Counted(surrogate, model.passes)


class BareRate:
    """Seconds of passes of a bare network: as it is, or as an engine prepares it if that is faster.

    Batches of powers of two are timed, and what lies between is interpolated.

    Args:
        model: the network, frozen while it is timed.
        engine: what prepares its other form.
        images: N×C×H×W, repeated where batches are larger.
        device: `cpu` or `cuda`.
    """

    def __init__(self, model: nn.Module, engine: Engine, images: Tensor, device: str) -> None:
        with frozen(model):
            copy = engine.prepare(model, images[:EXAMPLES])
        self.model, self.images, self.device = model, images, device
        self.forms = [model] if copy is model else [model, copy]
        self._times: dict[tuple[int, bool], list[list[float]]] = defaultdict(
            lambda: [[] for _ in self.forms]
        )

    def measure(self, passes: Sequence[Passes] = ()) -> None:
        """Time batches of up to N images, and of up to the most of some passes, form by form."""
        seen = [size for made in passes for size, _ in made.batches]
        with frozen(self.model):
            for size in _powers(max(seen, default=len(self.images))):
                x = self.images.repeat(-(-size // len(self.images)), 1, 1, 1)[:size]
                for gradient in (False, True):
                    for number, form in [*enumerate(self.forms)] * REPEATS:
                        self._times[size, gradient][number].append(self._timed(form, x, gradient))

    def seconds(self, passes: Passes) -> float:
        """Return what passes would cost on the bare network, by what was measured."""
        made = passes.batches.items()
        return sum(count * self._price(size, gradient) for (size, gradient), count in made)

    def _price(self, size: int, gradient: bool) -> float:
        sizes = sorted({size for size, _ in self._times})
        prices = [min(map(statistics.median, self._times[size, gradient])) for size in sizes]
        return float(np.interp(size, sizes, prices)) * max(1.0, size / sizes[-1])

    def _timed(self, form: nn.Module, x: Tensor, gradient: bool) -> float:
        now = clock(self.device)
        begun = now()
        with torch.set_grad_enabled(gradient):
            x = x.detach().requires_grad_(gradient)
            out = form(x)
            if gradient:
                torch.autograd.grad(out.sum(), x)
        if self.device == "cuda":
            torch.cuda.synchronize()
        return now() - begun


def _powers(largest: int) -> list[int]:
    """Return powers of two, up to the first that is not smaller."""
    return [1 << power for power in range(max(1, (largest - 1).bit_length()) + 1)]

"""Random numbers: seeds per purpose, generators, and draws that several processes share."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor


@contextmanager
def fork_rng(gpus: Sequence[int] | None = None) -> Iterator[None]:
    """Restore the global generators of Python, NumPy and torch afterwards.

    Args:
        gpus: those whose generators are restored, which starts CUDA there; unless given, the
            current one and those that hold memory of this process, if it has started CUDA.
    """
    gpus = _own_gpus() if gpus is None else gpus
    python, array = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(gpus):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(array)


def _own_gpus() -> list[int]:
    if not torch.cuda.is_initialized():
        return []
    own = torch.cuda.current_device()
    numbers = range(torch.cuda.device_count())
    return [n for n in numbers if n == own or torch.cuda.memory_reserved(n) > 0]


@contextmanager
def isolated_rng(seed: int) -> Iterator[None]:
    """Seed the global generators of Python, NumPy and torch for a while, then restore them."""
    with fork_rng():
        seed_everything(seed)
        yield


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    seed_torch(seed)


def seed_torch(seed: int) -> None:
    """Seed the global generators of torch; without a GPU, the one of the CPU.

    For GPUs that were not started torch keeps each seed and a stack trace, thrice, until they are:
    without one that takes longer and longer, and ever more memory.
    """
    if torch.cuda.is_initialized() or _gpus_here():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


@cache
def _gpus_here() -> bool:
    return torch.cuda.device_count() > 0 or torch.backends.mps.is_available()


def rng_state(generator: torch.Generator) -> dict[str, Any]:
    """Return the states of the global generators and of another one, as plain values and tensors.

    The state of the GPU that the generator is on is among them.
    """
    array: Any = np.random.get_state()
    name, keys, *rest = array
    own = generator.device
    return {
        "python": random.getstate(),
        "numpy": (name, keys.tolist(), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(own) if own.type == "cuda" else None,
        "generator": generator.get_state(),
        "rank": rank_generator(generator).get_state(),
        "common": getattr(generator, "common", None),
    }


def restore_rng(state: dict[str, Any], generator: torch.Generator) -> None:
    """Put the generators back into a state of `rng_state`."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], generator.device)
    rank_generator(generator).set_state(state["rank"])
    generator.set_state(state["generator"])
    if isinstance(generator, SharedGenerator):
        generator.common = state.get("common") or generator.common


def derive(seed: int, *path: object) -> int:
    """Return a seed for one purpose, such as `derive(0, "epoch", 3)`, independent of the others."""
    text = repr((seed, *path)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:7], "big")


def generator_of(seed: int, device: torch.device | str) -> torch.Generator:
    """Return a new generator on a device, in the state of a seed."""
    return torch.Generator(device).manual_seed(seed)


class SharedGenerator(torch.Generator):
    """A generator that is in the same state in several processes.

    Each rank draws the numbers of the whole batch and keeps its own rows: so an image meets the
    same random numbers in one process and in several.

    Attributes:
        rank: the number of this process.
        size: the number of processes.
        of_rank: another generator, in a state of its own in each process, for draws that not all
            processes make equally often.
        parts: equal parts of a batch, such as first and second views, each of which the processes
            share.
        around: rows of the processes before and after this one, where not all have equally many.
        common: states of torch's global generators as they are in one process.
    """

    rank: int
    size: int
    of_rank: torch.Generator
    parts: int = 1
    around: tuple[int, int] | None = None
    common: dict[str, Tensor]

    @classmethod
    def of(cls, seed: int, device: torch.device, rank: int, size: int) -> SharedGenerator:
        """Return the generator of one process, in the state of a seed."""
        generator = cls(device)
        generator.manual_seed(seed)
        generator.rank, generator.size = rank, size
        generator.of_rank = torch.Generator(device).manual_seed(derive(seed, "rank", rank))
        generator.common = _global_states(device)
        return generator

    def place(self, count: int) -> tuple[int, slice]:
        """Return the rows of all processes, and where this one has its own, `count` of them."""
        before, after = self.around or (self.rank * count, (self.size - self.rank - 1) * count)
        return before + count + after, slice(before, before + count)


@contextmanager
def in_parts(generator: torch.Generator, parts: int) -> Iterator[None]:
    """Draw for batches of several equal parts, each of which the processes share."""
    if not isinstance(generator, SharedGenerator):
        yield
        return
    generator.parts = parts
    try:
        yield
    finally:
        generator.parts = 1


def for_all(
    draw: Callable[[Tensor], Tensor], x: Tensor, generator: torch.Generator | None
) -> Tensor:
    """Return what a function of images, N×…, makes of them with torch's global generators.

    In several processes, each gets what one process would make of its rows of the whole batch. The
    rows of the others are zeros then, which the function must not mix with its own.
    """
    if not isinstance(generator, SharedGenerator):
        return draw(x)
    count, rows = generator.place(len(x))
    whole = x.new_zeros(count, *x.shape[1:])
    whole[rows] = x
    with fork_rng():
        _set_global_states(generator.common, generator.device)
        found = draw(whole)
        generator.common = _global_states(generator.device)
    return found[rows]


def uniform(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Return uniform numbers in [0, 1) for a batch of this shape, on the generator's device."""
    return _rows(torch.rand, shape, generator)


def normal(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Return standard normal numbers for a batch of this shape."""
    return _rows(torch.randn, shape, generator)


def integers(high: int, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Return uniform whole numbers from 0 to `high` − 1 for a batch of this shape."""
    return _rows(partial(torch.randint, high), shape, generator)


def shared_uniform(generator: torch.Generator) -> float:
    """Return one uniform number in [0, 1), the same in all processes that share a generator."""
    return float(torch.rand((), generator=generator, device=generator.device))


def rank_generator(generator: torch.Generator) -> torch.Generator:
    """Return the generator for draws that not all processes make equally often."""
    return generator.of_rank if isinstance(generator, SharedGenerator) else generator


def _rows(draw: Callable[..., Tensor], shape: Sequence[int], generator: torch.Generator) -> Tensor:
    where = {"generator": generator, "device": generator.device}
    if not isinstance(generator, SharedGenerator):
        return draw(tuple(shape), **where)
    count, rows = generator.place(shape[0] // generator.parts)
    whole = draw((generator.parts * count, *shape[1:]), **where)
    return whole.unflatten(0, (generator.parts, count))[:, rows].flatten(0, 1)


def _global_states(device: torch.device) -> dict[str, Tensor]:
    states = {"torch": torch.get_rng_state()}
    return states | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def _set_global_states(states: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(states["torch"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)

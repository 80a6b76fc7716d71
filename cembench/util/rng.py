"""Random numbers: seeds for each purpose, generators, and draws that several processes share."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from torch import Tensor


@contextmanager
def kept_rng() -> Iterator[None]:
    """Put Python's, NumPy's and torch's global generators back afterwards."""
    python, array = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(array)


@contextmanager
def isolated_rng(seed: int) -> Iterator[None]:
    """Seed Python's, NumPy's and torch's global generators for a while, then put them back."""
    with kept_rng():
        seed_everything(seed)
        yield


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's global generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def derive(seed: int, *path: object) -> int:
    """Return a seed for one purpose, such as `derive(0, "epoch", 3)`, independent of all others."""
    text = repr((seed, *path)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:7], "big")


def generator_of(seed: int, device: torch.device | str) -> torch.Generator:
    """Return a generator of its own on a device."""
    return torch.Generator(device).manual_seed(seed)


class SharedGenerator(torch.Generator):
    """A generator that several processes hold in the same state.

    Whoever draws for a batch draws for the batches of all, and keeps the rows that are its own: so
    images meet the same random numbers in one process and in several.

    Attributes:
        own: a generator that no other process has, for draws whose number differs between them.
    """

    rank: int
    size: int
    own: torch.Generator

    @classmethod
    def of(cls, seed: int, device: torch.device, rank: int, size: int) -> SharedGenerator:
        """Return one in the state of a seed, for one process of several."""
        generator = cls(device)
        generator.manual_seed(seed)
        generator.rank, generator.size = rank, size
        generator.own = torch.Generator(device).manual_seed(derive(seed, "rank", rank))
        return generator


def uniform(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Return numbers in [0, 1) for a batch of that shape, on the device of the generator."""
    return _rows(torch.rand, shape, generator)


def normal(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Return standard normal numbers."""
    return _rows(torch.randn, shape, generator)


def integers(high: int, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Return whole numbers below `high`."""
    return _rows(partial(torch.randint, high), shape, generator)


def own(generator: torch.Generator) -> torch.Generator:
    """Return the generator for draws that processes make in different numbers."""
    return generator.own if isinstance(generator, SharedGenerator) else generator


def _rows(draw: Callable[..., Tensor], shape: Sequence[int], generator: torch.Generator) -> Tensor:
    where = {"generator": generator, "device": generator.device}
    if not isinstance(generator, SharedGenerator):
        return draw(tuple(shape), **where)
    count, rank = shape[0], generator.rank
    whole = draw((count * generator.size, *shape[1:]), **where)
    return whole[rank * count : (rank + 1) * count]

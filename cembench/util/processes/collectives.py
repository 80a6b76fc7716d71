"""Collectives with gradients: sums over processes, and the rows of all processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from cembench.util.processes.distributed import World, world
from cembench.util.processes.meeting import LostProcessError


def sum_of_all(x: Tensor) -> Tensor:
    """Return the sum over processes; its gradient is the sum of theirs."""
    found: Tensor = _Sum.apply(x)
    return found


def rows_of_all(x: Tensor, parts: int = 1, ranks: World | None = None) -> Tensor:
    """Return the rows of all processes, equally many of each, in the order of one process.

    The gradient of a row is the sum of those that it has in all processes. Where rows are in equal
    parts, such as first and second views, those of all processes come part by part. `ranks` are the
    processes, all of them unless given.
    """
    if (ranks or world()).size == 1:
        return x
    every: Tensor = _Rows.apply(x.unflatten(0, (parts, -1)))
    return every.flatten(0, 1)


def place_of_rows(
    count: int, device: torch.device, parts: int = 1, ranks: World | None = None
) -> Tensor:
    """Return where in `rows_of_all` the rows of this process are, of which it has `count`."""
    ranks = ranks or world()
    every = torch.arange(count * ranks.size, device=device).reshape(parts, ranks.size, -1)
    return every[:, ranks.rank].flatten()


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        with _losing():
            dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        return sum_of_all(gradients[0])


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        every = [torch.empty_like(x) for _ in range(world().size)]
        with _losing():
            dist.all_gather(every, x.contiguous())
        return torch.cat(every, 1)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        ranks = world()
        return sum_of_all(gradients[0]).chunk(ranks.size, 1)[ranks.rank]


@contextmanager
def _losing() -> Iterator[None]:
    """Tell a lost process from a mistake in a network, which raises anything."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise LostProcessError(str(error)) from error

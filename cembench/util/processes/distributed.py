"""Processes under torchrun that work as one: ranks, shards and collectives.

A single process is the plain case: all of it then works without torch.distributed.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from cembench.util.errors import CembenchError
from cembench.util.files import write_text
from cembench.util.processes.meeting import current_meeting

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """The processes that work together, as one of them sees them.

    Attributes:
        rank: the number of this process, from 0.
        size: the number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which alone writes files and reports."""
        return self.rank == 0

    def deal(self, name: str, items: Sequence[T]) -> Iterator[T]:
        """Yield items, each in one process: the next one wherever the last one is done first.

        Args:
            name: tells processes what they take items of, until all have met again.
            items: the same in all processes; a process may leave out a whole deal.
        """
        if self.size == 1:
            yield from items
            return
        meeting = current_meeting()
        counter = f"deal/{meeting.count}/{name}"
        while (number := meeting.store.add(counter, 1) - 1) < len(items):
            yield items[number]

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes in the order of their ranks, in every process."""
        if self.size == 1:
            return [value]
        self.barrier()
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        """Wait until all processes have come here, without a time-out.

        Raises:
            LostProcessError: when one has ended instead.
        """
        if self.size > 1:
            current_meeting().wait()

    def mean(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the mean over processes of each value, in float64 where there are several."""
        if self.size == 1:
            return values
        return self.average({name: value.detach().double() for name, value in values.items()})

    def average(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the mean over processes of each tensor; all have the same names and shapes."""
        if self.size == 1 or not tensors:
            return tensors
        flat = torch.cat([tensor.flatten() for tensor in tensors.values()])
        dist.all_reduce(flat)
        parts = (flat / self.size).split([tensor.numel() for tensor in tensors.values()])
        whole = zip(tensors.items(), parts, strict=True)
        return {name: part.view_as(tensor) for (name, tensor), part in whole}

    def highest(self, value: int) -> int:
        """Return the largest of the values of all processes, in every process."""
        if self.size == 1:
            return value
        number = torch.tensor(value)
        dist.all_reduce(number, dist.ReduceOp.MAX)
        return int(number)

    def on_all_ranks(self, work: Callable[[], T]) -> T:
        """Call a function in every process; if it fails in one, raise its error in all.

        Raises:
            CembenchError: that of the lowest rank that failed; only rank 0 reports it.
        """
        if self.size == 1:
            return work()
        result, failure = None, None
        try:
            result = work()
        except (CembenchError, OSError) as error:
            failure = error if isinstance(error, CembenchError) else CembenchError(str(error))
        for rank, found in enumerate(self.gather(failure)):
            if found is not None:
                found.reporting_rank = rank
                raise found
        return result  # type: ignore[return-value]

    def on_rank_zero(self, work: Callable[[], T]) -> T:
        """Call a function in rank 0 alone, and return its result in all processes.

        Raises:
            CembenchError: in all processes, when it fails there.
        """
        if self.size == 1:
            return work()
        (result, *_) = self.gather(self.on_all_ranks(lambda: work() if self.first else None))
        return result  # type: ignore[return-value]

    def assert_same(self, **values: object) -> None:
        """Refuse processes that were started differently.

        Args:
            values: what must be the same in all processes, by name.

        Raises:
            CembenchError: naming the first value that differs, and its rank.
        """
        everyone = self.gather(values)
        for rank, theirs in enumerate(everyone):
            for key, value in everyone[0].items():
                if theirs[key] != value:
                    raise CembenchError.on_every_rank(
                        f"process {rank} has {key} {theirs[key]}, process 0 has {value}; "
                        "start all alike"
                    )

    def require_shared_filesystem(self, folder: Path) -> None:
        """Refuse a folder that some process does not see as rank 0 does.

        Raises:
            CembenchError: naming the process and its host.
        """
        if self.size == 1:
            return
        file = folder / ".meeting"
        token = self.on_rank_zero(lambda: _write_token(file))
        seen = self.gather((file.exists() and file.read_text() == token, socket.gethostname()))
        self.on_rank_zero(lambda: file.unlink(missing_ok=True))
        for rank, (sees, host) in enumerate(seen):
            if not sees:
                raise CembenchError.on_every_rank(
                    f"process {rank} on {host} does not see {folder} as process 0 on {seen[0][1]} "
                    "does; put runs on a file system that all nodes share"
                )


def _write_token(file: Path) -> str:
    token = secrets.token_hex(8)
    write_text(file, token)
    return token


ALONE = World()  # a single process


def world() -> World:
    """Return the processes of the process group; a single one where there is no group."""
    if not (dist.is_available() and dist.is_initialized()):
        return ALONE
    return World(dist.get_rank(), dist.get_world_size())

"""Processes under torchrun that work as one: ranks, shards and collectives.

A single process is the plain case: all of it then works without torch.distributed.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from cembench.util.devices import pick_device
from cembench.util.errors import CembenchError
from cembench.util.files import write_text

T = TypeVar("T")
TIMEOUT = "CEMBENCH_TIMEOUT"  # the variable with the seconds that a process waits for the others
# Seconds in which gloo's threads free the tensors of the last collective, for which they need the
# interpreter: a process whose interpreter ends before that is aborted.
AFTER = 0.1
RESTARTS = "TORCHELASTIC_RESTART_COUNT"
MINUTES = 30
LOST = re.compile("gloo|nccl|closed by peer|timed? ?out", re.IGNORECASE)  # torch has no type for it


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

    def shard(self, items: Sequence[T]) -> Sequence[T]:
        """Return this process's items: every `size`-th one, starting at `rank`."""
        return items[self.rank :: self.size]

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes in the order of their ranks, in every process."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        """Wait until all processes have come here."""
        if self.size > 1:
            dist.barrier()

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


@contextmanager
def process_group(device: str) -> Iterator[str]:
    """Open the process group of torchrun's processes, if there are any; close it at the end.

    Every collective gives up after half an hour, or CEMBENCH_TIMEOUT seconds. Nested calls only
    choose the device.

    Args:
        device: as `pick_device` takes it; gloo connects processes, and NCCL their GPUs.

    Yields:
        The device of this process: a GPU of its own where there are several processes.

    Raises:
        CembenchError: when the group cannot be opened (a port in use, no NCCL, too few GPUs), or
            when another process has ended or does not answer.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield _own_device(device)
        return
    _open_group(device, timedelta(seconds=_timeout()))
    try:
        yield world().on_all_ranks(lambda: _own_device(device))
    except (dist.DistError, RuntimeError) as error:
        if not isinstance(error, dist.DistError) and not LOST.search(str(error)):
            raise
        raise CembenchError(
            f"lost touch with another process: {_line(error)}; see what it says, then start all "
            f"again (train with --resume); {TIMEOUT} is how many seconds each waits"
        ) from error
    finally:
        dist.destroy_process_group()
        time.sleep(AFTER)


def _own_device(device: str) -> str:
    """Return the device of this process."""
    device, local = pick_device(device), int(os.environ.get("LOCAL_RANK", "0"))
    if not device.startswith("cuda") or world().size == 1:
        return device
    if device != "cuda":
        raise CembenchError(f"device {device}: each process takes a GPU of its own; use cuda")
    if not dist.is_nccl_available():
        raise CembenchError("this torch has no NCCL to join GPUs with; use --device cpu")
    if local >= torch.cuda.device_count():
        raise CembenchError(
            f"process {local} of this machine has no GPU of its own among "
            f"{torch.cuda.device_count()}; lower --nproc-per-node"
        )
    torch.cuda.set_device(local)
    return f"cuda:{local}"


def _open_group(device: str, timeout: timedelta) -> None:
    # gloo carries Python objects between processes, which NCCL cannot
    gpus = device != "cpu" and torch.cuda.is_available() and dist.is_nccl_available()
    where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    try:
        store, rank, size = next(iter(dist.rendezvous("env://", timeout=timeout)))
        # torchrun's store outlives a crash, and what it knows of processes before it is stale
        store = dist.PrefixStore(os.environ.get(RESTARTS, "0"), store)
        backend = "cpu:gloo,cuda:nccl" if gpus else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
    except (dist.DistError, RuntimeError, ValueError) as error:
        hint = "choose another --master-port" if "EADDRINUSE" in str(error) else "is it reachable?"
        raise CembenchError(f"processes cannot meet at {where}: {_line(error)}; {hint}") from error


def _line(error: Exception) -> str:
    """Return the first line of an error, without the place in torch's source and its advice."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return re.sub(r"^\[[^\]]*:\d+\] ", "", line).split(" This is typically")[0]


def restarted() -> bool:
    """Return whether torchrun started this process again after a failure."""
    return int(os.environ.get(RESTARTS, "0")) > 0


def _timeout() -> float:
    text = os.environ.get(TIMEOUT, str(MINUTES * 60))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e7:
        raise CembenchError(f"{TIMEOUT}={text}: give seconds above 0")
    return seconds

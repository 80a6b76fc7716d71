"""Several processes as one, under torchrun: rank, shares, agreement. One is the plain case."""

from __future__ import annotations

import os
import re
import secrets
import socket
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
PATIENCE = "CEMBENCH_TIMEOUT"  # seconds that a process waits for the others
RESTARTS = "TORCHELASTIC_RESTART_COUNT"
MINUTES = 30
LOST = re.compile("gloo|nccl|closed by peer|timed? ?out", re.IGNORECASE)  # torch has no type for it


@dataclass(frozen=True)
class World:
    """This process among those that work together.

    Attributes:
        rank: its number, from 0.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Return every `size`-th item, from the rank on: all of them in one process."""
        return items[self.rank :: self.size]

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes, in the order of their ranks, in each."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Go on when all have come here."""
        if self.size > 1:
            dist.barrier()

    def mean(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the means over processes of scalars that all have under the same names."""
        if self.size == 1 or not values:
            return values
        joined = torch.stack([value.detach().double() for value in values.values()])
        dist.all_reduce(joined)
        means = (joined / self.size).unbind()
        return dict(zip(values, means, strict=True))

    def on_all_ranks(self, work: Callable[[], T]) -> T:
        """Do something in every process; if it fails in one, raise its error in all.

        Raises:
            CembenchError: that of the lowest rank, which the first process alone has to say.
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
        """Do something in the first process alone, and return its result in all.

        Raises:
            CembenchError: when it fails there.
        """
        if self.size == 1:
            return work()
        (result, *_) = self.gather(self.on_all_ranks(lambda: work() if self.first else None))
        return result  # type: ignore[return-value]

    def assert_same(self, **values: object) -> None:
        """Refuse to go on with processes that were started differently.

        Raises:
            CembenchError: naming what differs, and where.
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
        """Refuse to go on where a process does not see the folder that the first one writes to.

        Raises:
            CembenchError: naming the process and its host.
        """
        if self.size == 1:
            return
        note = folder / ".meeting"
        word = self.on_rank_zero(lambda: _written(note))
        seen = self.gather((note.exists() and note.read_text() == word, socket.gethostname()))
        self.on_rank_zero(lambda: note.unlink(missing_ok=True))
        for rank, (sees, host) in enumerate(seen):
            if not sees:
                raise CembenchError.on_every_rank(
                    f"process {rank} on {host} does not see {folder} as process 0 on {seen[0][1]} "
                    "does; put runs on a file system that all nodes share"
                )


def _written(note: Path) -> str:
    word = secrets.token_hex(8)
    write_text(note, word)
    return word


ALONE = World()


def world() -> World:
    """Return this process's place among those that were joined; alone unless they were."""
    if not (dist.is_available() and dist.is_initialized()):
        return ALONE
    return World(dist.get_rank(), dist.get_world_size())


@contextmanager
def joined(device: str) -> Iterator[str]:
    """Join the processes that torchrun started, if it did; leave them at the end.

    Every collective gives up after half an hour, or what CEMBENCH_TIMEOUT says, in seconds. Inside
    another call it only says the device.

    Args:
        device: `auto`, `cpu` or `cuda`; gloo joins processes, and NCCL their GPUs.

    Yields:
        The device of this process: a GPU of its own where there are several.

    Raises:
        CembenchError: when they cannot be joined: a port in use, no NCCL, too few GPUs; or when
            another one has gone or is silent.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield _own(device)
        return
    _join(device, timedelta(seconds=_patience()))
    try:
        yield world().on_all_ranks(lambda: _own(device))
    except (dist.DistError, RuntimeError) as error:
        if not isinstance(error, dist.DistError) and not LOST.search(str(error)):
            raise
        raise CembenchError(
            f"lost touch with another process: {_line(error)}; see what it says, then start all "
            f"again (train with --resume); {PATIENCE} is how many seconds each waits"
        ) from error
    finally:
        dist.destroy_process_group()


def _own(device: str) -> str:
    """Return the device of this process."""
    device, local = pick_device(device), int(os.environ.get("LOCAL_RANK", "0"))
    if device != "cuda" or world().size == 1:
        return device
    if not dist.is_nccl_available():
        raise CembenchError("this torch has no NCCL to join GPUs with; use --device cpu")
    if local >= torch.cuda.device_count():
        raise CembenchError(
            f"process {local} of this machine has no GPU of its own among "
            f"{torch.cuda.device_count()}; lower --nproc-per-node"
        )
    torch.cuda.set_device(local)
    return f"cuda:{local}"


def _join(device: str, patience: timedelta) -> None:
    # gloo carries what processes say to each other, which NCCL has no form for
    gpus = device != "cpu" and torch.cuda.is_available() and dist.is_nccl_available()
    where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    try:
        store, own, size = next(iter(dist.rendezvous("env://", timeout=patience)))
        # torchrun's store outlives a crash, and what it knows of processes before it is stale
        store = dist.PrefixStore(os.environ.get(RESTARTS, "0"), store)
        backend = "cpu:gloo,cuda:nccl" if gpus else "gloo"
        dist.init_process_group(backend, store=store, rank=own, world_size=size, timeout=patience)
    except (dist.DistError, RuntimeError, ValueError) as error:
        hint = "choose another --master-port" if "EADDRINUSE" in str(error) else "is it reachable?"
        raise CembenchError(f"processes cannot meet at {where}: {_line(error)}; {hint}") from error


def _line(error: Exception) -> str:
    """Return what happened, without the place in torch's source and its advice."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return re.sub(r"^\[[^\]]*:\d+\] ", "", line).split(" This is typically")[0]


def restarted() -> bool:
    """Return whether torchrun started this process again after a failure."""
    return int(os.environ.get(RESTARTS, "0")) > 0


def _patience() -> float:
    text = os.environ.get(PATIENCE, str(MINUTES * 60))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e7:
        raise CembenchError(f"{PATIENCE}={text}: give seconds above 0")
    return seconds

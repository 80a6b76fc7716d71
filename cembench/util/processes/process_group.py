"""Process group of torchrun's processes: opened and closed, with a device for each process."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from cembench.util.devices import pick_device
from cembench.util.errors import CembenchError
from cembench.util.processes.distributed import world
from cembench.util.processes.meeting import LostProcessError, close_meeting, current_meeting

TIMEOUT = "CEMBENCH_TIMEOUT"  # the variable with the seconds that a step may wait for the others
# Seconds in which gloo's threads free the tensors of the last collective, for which they need the
# interpreter: a process whose interpreter ends before that is aborted.
AFTER = 0.1
RESTARTS = "TORCHELASTIC_RESTART_COUNT"
MINUTES = 30
LOST = re.compile("gloo|nccl|closed by peer|timed? ?out", re.IGNORECASE)  # torch has no type for it
AGENT = "TORCHELASTIC_RUN_ID"  # the variable by which torchrun's processes know it
PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of linux/prctl.h


@contextmanager
def process_group(device: str) -> Iterator[str]:
    """Open the process group of torchrun's processes, if there are any; close it at the end.

    A collective within a training step gives up after half an hour, or CEMBENCH_TIMEOUT seconds;
    between steps processes wait as long as all of them live. Those that torchrun started end with
    it. Nested calls only choose the device.

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
    _end_with_torchrun()
    try:
        yield world().on_all_ranks(lambda: _own_device(device))
    except (dist.DistError, RuntimeError) as error:
        known = isinstance(error, (dist.DistError, LostProcessError))
        if not known and not LOST.search(str(error)):
            raise
        lost = CembenchError(
            f"lost touch with another process: {_line(error)}; see what it says, then start all "
            f"again (train with --resume); {TIMEOUT} is how many seconds a training step waits"
        )
        lost.reporting_rank = 0 if isinstance(error, LostProcessError) and error.told else None
        raise lost from error
    finally:
        close_meeting()
        dist.destroy_process_group()
        time.sleep(AFTER)


def _end_with_torchrun() -> None:
    """Be asked to stop, as by SIGTERM, when torchrun ends without asking, as by SIGKILL.

    Linux alone can do that. What was started by other means is let alone: a script may end before
    the processes that it leaves in the background.
    """
    if AGENT in os.environ and sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGTERM)
        if os.getppid() != parent:  # it ended before
            signal.raise_signal(signal.SIGTERM)


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
        current_meeting()
    except (dist.DistError, RuntimeError, ValueError, OSError) as error:
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

"""Processes that work together: under torchrun as users start them, or forks that start at once."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from torch.distributed import run

from cembench.util.processes.process_group import process_group
from tests.conftest import Result
from tests.support.forks import Fork, called

LIMIT = 60  # seconds after which what hangs is killed, and its test fails
ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def torchrun(*args: object, processes: int = 2, options: Sequence[str] = (), **variables: str):
    """Start a `cembench` command, or a script, in several processes as a user does."""
    program = args if str(args[0]).endswith(".py") else ("-m", "cembench", *args)
    start = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    paths = os.pathsep.join(map(str, filter(None, [ROOT, os.environ.get("PYTHONPATH")])))
    return subprocess.Popen(
        [sys.executable, *start, *options, *map(str, program)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def forked_torchrun(
    *args: object, options: Sequence[str] = (), out: Path, processes: int = 2
) -> Fork:
    """Start a `cembench` command under torchrun where it and its processes are forks.

    What all of them print goes into the file `out`.
    """

    def work() -> None:
        with out.open("w") as file:
            for number in (1, 2):
                os.dup2(file.fileno(), number)
        sys.stdout, sys.stderr = os.fdopen(1, "w", 1), os.fdopen(2, "w", 1)
        start = ["--standalone", f"--nproc-per-node={processes}", "--start-method=fork", *options]
        script = ["--run-path", str(ROOT / "cembench" / "__main__.py")]
        run.main([*start, *script, *map(str, args)])

    return Fork(work, out.with_suffix(".pt"), OMP_NUM_THREADS="1")


def finished(process: subprocess.Popen[str]) -> Result:
    """Wait for what `torchrun` started."""
    try:
        out, err = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return Result(process.returncode, out, err)


class Place(NamedTuple):
    """What a fork is told of its part, as torchrun tells it."""

    rank: int
    size: int
    port: int

    @property
    def variables(self) -> dict[str, str]:
        return {
            "RANK": str(self.rank),
            "LOCAL_RANK": str(self.rank),
            "WORLD_SIZE": str(self.size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(self.port),
        }


def start(place: Place, work: Callable[[], Any], folder: Path, **variables: str) -> Fork:
    """Start a function as one of several processes; its result goes into the folder."""
    return Fork(work, folder / f"{place.rank}.pt", **place.variables, **variables)


def together(folder: Path, work: Callable[[], Any], size: int = 2) -> list[Any]:
    """Return what a function returns in each of several joined processes."""

    def inside() -> Any:
        with process_group("cpu"):
            return work()

    port = free_port()
    forks = [start(Place(rank, size, port), inside, folder) for rank in range(size)]
    return [fork.result() for fork in forks]


def ranks(
    folder: Path,
    *commands: Sequence[object],
    size: int | None = None,
    variables: Mapping[str, str] | None = None,
    port: int | None = None,
) -> list[Result]:
    """Run a command in each of several processes, not necessarily the same, by hand."""
    port, size = port or free_port(), size or len(commands)
    forks = [
        start(Place(rank, size, port), partial(called, command), folder, **(variables or {}))
        for rank, command in enumerate(commands)
    ]
    return [fork.result() for fork in forks]

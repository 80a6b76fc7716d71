"""Several processes for one experiment of a queue, started through torchrun."""

from __future__ import annotations

import os
import signal
import subprocess

from cembench.suites.launchers.job import Job, python
from cembench.suites.launchers.processes import end_group, wait_to_save
from cembench.suites.outcomes import Outcome, last_line
from cembench.suites.queue import Queue
from cembench.suites.worker import Died
from cembench.util.registry import named_plugins


def run_in_processes(queue: Queue, name: str, device: str, count: int) -> Outcome:
    """Run an experiment in several processes, the first of which stores its outcome.

    Raises:
        Died: when they end without one.
    """
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    arguments = ["work", str(queue.out), "--suite", queue.name, "--only", name]
    arguments += ["--device", device, "--owner", str(os.getpid())]
    for module in named_plugins():
        arguments += ["--plugin", module]
    log = queue.layout(name).log
    with log.open("ab") as file:
        process = subprocess.Popen(
            python([*launch, "-m", "cembench", *arguments]),
            # torchrun starts Python without -P, and a queue chooses the working folder
            env=os.environ | {"PYTHONPATH": Job.path(), "PYTHONSAFEPATH": "1"},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
    try:
        code = process.wait()
    except BaseException:
        _stop(process)
        raise
    finally:
        end_group(process.pid)
    if (outcome := queue.outcome(name)) is None:
        raise Died(f"its processes ended with code {code} ({last_line(log)}); see {log}")
    return outcome


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Have the processes save their state, which torchrun passes SIGTERM on to, and end."""
    process.send_signal(signal.SIGTERM)
    wait_to_save(lambda: process.poll() is None)

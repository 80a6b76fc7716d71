"""Processes that end together: a process ends with its starter, and takes its own along.

A started process leads a process group of its own, to which all that it starts belongs. The group
is killed as a whole: by the starter or, where that was killed itself, by the process that notices.
So the loaders and compilers of a job end too. The threads of a group look for the starter instead
of asking the kernel for a signal, since that would come to the leader alone.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress

PAUSE = 0.1  # seconds from one look at a process to the next
SAVING = 60.0  # seconds to save a state when told to end; SLURM signals 90 before the time limit


def end_with(parent: int, owner: int | None = None) -> None:
    """Lead a process group from now on, and kill it once the parent of this process has ended.

    A parent that has ended already is noticed too.

    Args:
        parent: process id of the parent.
        owner: process id of another process on this machine whose end counts as well.
    """

    def follow() -> None:
        while os.getppid() == parent and (owner is None or _runs(owner)):
            time.sleep(PAUSE)
        end_group(os.getpid())
        os._exit(1)  # on Windows, which has no groups

    if hasattr(os, "setpgid"):
        with suppress(PermissionError):  # it leads a session, which is a group
            os.setpgid(0, 0)
    threading.Thread(target=follow, daemon=True).start()


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, PermissionError):  # gone; of another user, who got its number
        return False
    return True


def wait_to_save(runs: Callable[[], bool]) -> None:
    """Wait while processes that were told to end save their state, as far as there is time."""
    end = time.monotonic() + SAVING
    while runs() and time.monotonic() < end:
        time.sleep(PAUSE)


def end_group(leader: int) -> None:
    """Kill what is left of the process group of a process, if it leads one."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, signal.SIGKILL)

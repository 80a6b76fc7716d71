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
from collections.abc import Iterator
from contextlib import contextmanager, suppress

PAUSE = 0.1  # seconds from one look for the starter to the next
STOPPING = (signal.SIGINT, signal.SIGTERM)


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


def end_group(leader: int) -> None:
    """Kill what is left of the process group of a process, if it leads one."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, signal.SIGKILL)


@contextmanager
def held_signals() -> Iterator[None]:
    """Hold back SIGINT and SIGTERM until this ends, also from processes that it starts.

    Python ignores exceptions of what it calls around a fork, so a Ctrl-C would be lost there.
    """
    if threading.current_thread() is not threading.main_thread():  # Python has signals come to it
        yield
        return
    came: list[int] = []
    before = {n: signal.signal(n, lambda number, _: came.append(number)) for n in STOPPING}
    _mask("SIG_BLOCK")
    try:
        yield
    finally:
        _mask("SIG_UNBLOCK")
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
        if came:
            signal.raise_signal(came[0])


def release_signals() -> None:
    """In a process that was started under `held_signals`: give signals their default effect."""
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    _mask("SIG_UNBLOCK")


def _mask(how: str) -> None:
    if hasattr(signal, "pthread_sigmask"):  # not on Windows
        signal.pthread_sigmask(getattr(signal, how), STOPPING)

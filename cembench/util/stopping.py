"""Signals that end a command: Ctrl-C, SIGTERM, and USR1 before a time limit.

The command line alone handles them. Without its handlers, in a notebook or a script, nothing here
has an effect. Torch is not imported, so that signals are handled from the first moment on.
"""

from __future__ import annotations

import _thread
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Literal, NamedTuple

SAME = 1.0  # seconds: torchrun, SLURM and terminals may all send what was asked once
MOMENT = 0.05  # seconds until a signal that came during an import is tried again


class Ending(NamedTuple):
    """How a command ends: what it says, and its exit code."""

    words: str
    code: int


KEPT = "what was finished is kept"
TEMPORARY_FAILURE = 75  # EX_TEMPFAIL of sysexits.h: start it again
ENDINGS = {
    signal.SIGINT: Ending(f"interrupted; {KEPT}", 130),
    signal.SIGTERM: Ending(f"terminated; {KEPT}", 143),
}
if hasattr(signal, "SIGUSR1"):  # not on Windows
    out_of_time = f"stopped before its time limit; {KEPT}, start it again to go on"
    ENDINGS[signal.SIGUSR1] = Ending(out_of_time, TEMPORARY_FAILURE)


class _Now:
    """What this process was asked, and what a signal does at the moment.

    Attributes:
        asked: the first signal that came; 0 for none.
        since: when it came.
        pending: whether it waits for the end of an import.
        mode: `leave` the process at once, `raise` KeyboardInterrupt, or only `note` the signal.
    """

    asked: int = 0
    since: float = 0.0
    pending: bool = False
    mode: Literal["leave", "raise", "note"] = "leave"


def handle_signals() -> None:
    """Handle the signals that end a command from now on; those that are ignored stay ignored.

    Until `interruptible` they end the process at once, in one line: nothing is open yet.
    """
    _Now.asked, _Now.pending, _Now.mode = 0, False, "leave"
    for number in ENDINGS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _on_signal)


@contextmanager
def kept_handlers(others: Iterable[int] = ()) -> Iterator[None]:
    """Put the handlers of the signals, and of other ones, back that a library replaces inside."""
    before = {number: signal.getsignal(number) for number in (*ENDINGS, *others)}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler or signal.SIG_DFL)


@contextmanager
def held_signals() -> Iterator[None]:
    """Hold back signals that end a command until this ends, also from processes that it starts.

    Python ignores exceptions of what it calls around a fork, so a Ctrl-C would be lost there.
    """
    if threading.current_thread() is not threading.main_thread():  # Python has signals come to it
        yield
        return
    came: list[int] = []
    before = {n: signal.signal(n, lambda number, _: came.append(number)) for n in ENDINGS}
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
    _set_defaults()
    _mask("SIG_UNBLOCK")


@contextmanager
def interruptible_apart() -> Iterator[None]:
    """In such a process: raise KeyboardInterrupt where a signal that ends a command comes."""
    _set_defaults()
    handle_signals()
    with _mode("raise"):
        _mask("SIG_UNBLOCK")
        yield


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt where a signal comes, or at the first moment after an import."""
    with _mode("raise"):
        stop_if(_Now.asked)
        yield
        stop_if(_Now.asked)


@contextmanager
def postponed() -> Iterator[None]:
    """Only note a signal that comes: raise KeyboardInterrupt in the end, or at a second signal.

    Where this is itself postponed, the end is that of the outer one.
    """
    outer = _Now.mode
    with _mode("note"):
        yield
    if outer == "raise":
        stop_if(_Now.asked)


def asked() -> int:
    """Return the signal that asked this process to stop; 0 for none."""
    return _Now.asked


def stop_if(number: int) -> None:
    """Stop as if this signal had come, unless it is 0.

    Raises:
        KeyboardInterrupt: for any signal, since libraries know what to do with it.
    """
    if number:
        _Now.asked, _Now.pending = _Now.asked or number, False
        raise KeyboardInterrupt


def forget() -> None:
    """Go on after a signal that was answered, as if none had come."""
    _Now.asked, _Now.pending = 0, False


def ending() -> Ending:
    """Return how this process ends: as the first signal asked, or as after Ctrl-C."""
    _Now.pending = False
    return ENDINGS[signal.Signals(_Now.asked or signal.SIGINT)]


@contextmanager
def _mode(mode: Literal["raise", "note"]) -> Iterator[None]:
    before, _Now.mode = _Now.mode, mode
    try:
        yield
    finally:
        _Now.mode = before


def _on_signal(number: int, frame: FrameType | None) -> None:
    again = bool(_Now.asked) and not _Now.pending
    if again and time.monotonic() - _Now.since < SAME:
        return
    if not _Now.asked:
        _Now.asked, _Now.since = number, time.monotonic()
    _Now.pending = False
    if _Now.mode == "leave":
        _leave(silently=again)
    elif _Now.mode == "raise" or again:
        _interrupt(number, frame)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, after an import if there is one: extension modules garble it."""
    if not _importing(frame):
        raise KeyboardInterrupt
    _Now.pending = True
    _thread.start_new_thread(_try_again, (number,))


def _try_again(number: int) -> None:
    time.sleep(MOMENT)
    _thread.interrupt_main(signal.Signals(number))


def _importing(frame: FrameType | None) -> bool:
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


def _leave(silently: bool) -> None:
    words, code = ending()
    if not silently and os.environ.get("RANK", "0") == "0":
        os.write(2, f"cembench: error: {words}\n".encode())
    os._exit(code)


def _set_defaults() -> None:
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)


def _mask(how: str) -> None:
    if hasattr(signal, "pthread_sigmask"):  # not on Windows
        signal.pthread_sigmask(getattr(signal, how), ENDINGS)

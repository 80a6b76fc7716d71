"""Stages of work and the time that each takes, collected where somebody asks for it.

Code that may be worth timing marks itself with `stage`, which does nothing unless a `timed` is
around it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Self

SHORT = 0.05  # seconds that are not worth a line of a log
log = logging.getLogger("cembench")


@dataclass(frozen=True)
class Seconds:
    """A time: CPU seconds of all threads of this process, and wall seconds."""

    cpu: float = 0.0
    wall: float = 0.0

    @classmethod
    def now(cls) -> Self:
        """Return the time since the process, or the machine, began."""
        return cls(time.process_time(), time.perf_counter())

    def __add__(self, other: Seconds) -> Seconds:
        return Seconds(self.cpu + other.cpu, self.wall + other.wall)

    def __sub__(self, other: Seconds) -> Seconds:
        return Seconds(self.cpu - other.cpu, self.wall - other.wall)


@dataclass
class StageTimes:
    """The time of each stage, without that of stages inside it.

    Attributes:
        seconds: by stage.
    """

    seconds: dict[str, Seconds] = field(default_factory=dict)
    _inside: list[Seconds] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of a block to a stage."""
        begun = Seconds.now()
        self._inside.append(Seconds())
        try:
            yield
        finally:
            taken = Seconds.now() - begun
            own = taken - self._inside.pop()
            self.seconds[name] = self.seconds.get(name, Seconds()) + own
            if self._inside:
                self._inside[-1] += taken


_current: ContextVar[StageTimes | None] = ContextVar("stages", default=None)


@contextmanager
def timed(rest: str = "other") -> Iterator[StageTimes]:
    """Yield the times of all stages until this ends; `rest` is what no stage claims."""
    times = StageTimes()
    token = _current.set(times)
    try:
        with times.stage(rest):
            yield times
    finally:
        _current.reset(token)


def stage(name: str) -> AbstractContextManager[None]:
    """Time a block under the name of a stage, if somebody asks for it; log it, if they ask."""
    times = _current.get()
    if log.isEnabledFor(logging.INFO):
        return _logged(name, times)
    return nullcontext() if times is None else times.stage(name)


@contextmanager
def _logged(name: str, times: StageTimes | None) -> Iterator[None]:
    begun = time.perf_counter()
    with nullcontext() if times is None else times.stage(name):
        yield
    if (seconds := time.perf_counter() - begun) >= SHORT:
        log.info("%s: %.3g s", name, seconds)

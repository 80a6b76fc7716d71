"""Following a suite: what a command does while workers take experiments."""

from __future__ import annotations

import time
from collections.abc import Callable

from cembench.suites.launchers.crew import Crew
from cembench.suites.outcomes import Outcome
from cembench.suites.patience import patiently
from cembench.suites.queue import Look, Queue
from cembench.suites.worker import Worker
from cembench.util.stopping import asked, stop_if

PAUSE = 0.25  # seconds from one look at what runs to the next; more where a look takes long

Update = Callable[[Look], None]
Tend = Callable[[int, Update], bool]  # given how many are over; whether something happened


def follow(queue: Queue, tend: Tend, update: Update) -> dict[str, Outcome]:
    """See to the workers until all is over, and return the outcomes.

    Args:
        queue: the queue.
        tend: is given how many are over, runs an experiment or replaces workers that died, and
            returns whether it took a while.
        update: is given what is new.
    """
    outcomes: dict[str, Outcome] = {}
    while True:
        begun = time.monotonic()
        look = patiently(queue.look, queue.out)
        outcomes |= look.news
        update(look)
        seconds = time.monotonic() - begun
        if len(outcomes) == len(queue.names) or queue.stopped:
            return outcomes
        stop_if(asked())  # Python drops an exception in a destructor, and with it a Ctrl-C
        if not tend(len(outcomes), update):
            time.sleep(max(PAUSE, 10 * seconds))


def together(crew: Crew) -> Tend:
    """Return what replaces workers that died."""

    def tend(over: int, update: Update) -> bool:
        crew.tend(over)
        return False

    return tend


class Alone:
    """The only worker of a command, which is the process of the command itself."""

    def __init__(self, queue: Queue, run: Callable[[str, str | None], Outcome]) -> None:
        self.update: Update = lambda look: None
        self.worker = Worker(queue, run, logged=False, on_change=self._tell)

    def tend(self, over: int, update: Update) -> bool:
        """Run an experiment that is free, and return whether there was one."""
        self.update = update
        return self.worker.step()

    def _tell(self, name: str, outcome: Outcome | None) -> None:
        if outcome is None:
            self.update(Look({}, {name}))

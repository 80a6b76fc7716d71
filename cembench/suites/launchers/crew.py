"""Crew: the workers that a command starts, and starts again where they die."""

from __future__ import annotations

from cembench.suites.launchers.local import Start
from cembench.suites.queue import RETRIES
from cembench.util.errors import CembenchError


class Crew:
    """Workers, by number.

    Args:
        start: starts several at once.
        size: how many there are.
    """

    def __init__(self, start: Start, size: int) -> None:
        self.start, self.size = start, size
        self.polls = dict(enumerate(start(range(size))))
        self.over, self.deaths = 0, 0

    def tend(self, over: int) -> None:
        """Replace workers that died; start one more where all have left and something is left.

        Args:
            over: how many experiments are over.

        Raises:
            CembenchError: when workers keep dying while nothing gets done.
        """
        if over > self.over:
            self.over, self.deaths = over, 0
        found = {number: poll() for number, poll in self.polls.items()}
        dead = [number for number, why in found.items() if why]
        self.deaths += len(dead)
        if self.deaths > 2 * (RETRIES + 1) * self.size:
            raise CembenchError(next(why for why in found.values() if why))
        self.polls = {n: self.polls[n] for n, why in found.items() if why is None}
        again = dead or [self.size] * (not self.polls)
        self.polls |= zip(again, self.start(again) if again else [], strict=True)

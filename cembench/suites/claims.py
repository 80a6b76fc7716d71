"""Claims: which experiment of a queue a worker takes next.

Each worker goes through the names in their order, and again through those that others have or that
wait for one that they start from. What is over is never looked at again, so a suite costs a few
touches of a file for each experiment and worker.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from cembench.suites.leases import PATIENCE, Lease, Terms, Watch
from cembench.suites.outcomes import Outcome
from cembench.suites.queue import Queue


class Claim(NamedTuple):
    """An experiment that this process has, and the one it starts from whose training diverged."""

    name: str
    lease: Lease
    diverged: str | None


class Claims:
    """What of a queue is left for this process.

    Attributes:
        queue: the queue.
        patience: seconds without a sign of life after which another process counts as dead.
        left: names of what is not over as far as this process knows.
        over: the outcomes of what is.
        watches: leases that other processes have.
    """

    def __init__(
        self, queue: Queue, patience: float = PATIENCE, names: Sequence[str] | None = None
    ) -> None:
        self.queue, self.patience = queue, patience
        self.left = deque(queue.names if names is None else names)
        self.over: dict[str, Outcome] = {}
        self.watches: dict[str, Watch] = {}

    def next(self) -> Claim | None:
        """Take an experiment that is free; None when there is none at the moment.

        Raises:
            OSError: when the store cannot be read or written.
        """
        blocked: set[str] = set()  # of this pass
        for _ in range(len(self.left)):
            name = self.left[0]
            lease = None if self._is_blocked(name, blocked) else self._take(name)
            if name in self.over:
                self.left.popleft()
                continue
            self.left.rotate(-1)
            if lease is not None:
                diverged = [one for one in self.queue.needs(name) if self.over[one].diverged]
                return Claim(name, lease, next(iter(diverged), None))
        return None

    @property
    def all_taken(self) -> bool:
        """Whether others have all that is left; what waits for something is not taken."""
        return all(name in self.watches for name in self.left)

    def _is_blocked(self, name: str, blocked: set[str]) -> bool:
        for one in self.queue.needs(name):
            if one not in blocked and not self._is_over(one):
                blocked.add(one)
            if one in blocked:
                return True
        return False

    def _is_over(self, name: str) -> bool:
        if name not in self.over and (outcome := self.queue.outcome(name)) is not None:
            self.over[name] = outcome
            self.watches.pop(name, None)
        return name in self.over

    def _take(self, name: str) -> Lease | None:
        """Return the lease of an experiment, unless another process has it or it is over."""
        watch = self.watches.get(name)
        if watch is None:
            if (first := self._lease(name, 1, deaths=0)).take():
                return first
            watch = self.watches[name] = Watch(self.queue.folder, name)
        if self._is_over(name) or not watch.is_free(self.patience):
            return None
        before = watch.terms
        same = before.session == self.queue.plan.session
        deaths = before.deaths * same + (not before.released) * same
        lease = self._lease(name, watch.number + 1, deaths)
        if not lease.take() or self._is_over(name):  # it may have ended just before its holder
            return None
        del self.watches[name]
        return lease

    def _lease(self, name: str, number: int, deaths: int) -> Lease:
        terms = Terms(session=self.queue.plan.session, deaths=deaths)
        return Lease(self.queue.folder, name, number, terms, self.patience)

"""Worker: takes experiments of a queue, one after the other, and stores how each ended."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext

from cembench.suites.claims import Claim, Claims
from cembench.suites.leases import LOST, PATIENCE
from cembench.suites.outcomes import RESUME_HINT, Outcome, written_to
from cembench.suites.patience import is_away, is_there, patiently, pauses
from cembench.suites.queue import RETRIES, Queue
from cembench.util.errors import CembenchError
from cembench.util.files.locks import Busy
from cembench.util.stopping import asked, forget, stop_if

SHORTEST, LONGEST = 0.1, 2.0  # seconds from one look for something free to the next

Run = Callable[[str, str | None], Outcome]
OnChange = Callable[[str, Outcome | None], None]


class Died(CembenchError):
    """The processes of an experiment ended before it was over."""


class Worker:
    """A process that takes experiments.

    Args:
        queue: the queue.
        run: runs the experiment of a name. It is also given the name of one that this one starts
            from, if training of that one diverged.
        names: what to take; all experiments unless given.
        logged: whether the output of an experiment is appended to its log.
        patience: seconds without a sign of life after which another process counts as dead.
        on_change: is given the name of an experiment that begins, and later its outcome too.
    """

    def __init__(
        self,
        queue: Queue,
        run: Run,
        names: Sequence[str] | None = None,
        *,
        logged: bool = True,
        patience: float = PATIENCE,
        on_change: OnChange | None = None,
    ) -> None:
        self.queue, self.run, self.logged, self.patience = queue, run, logged, patience
        self.claims, self.on_change = Claims(queue, patience, names), on_change

    @property
    def over(self) -> bool:
        """Whether nothing is left, or no more is to be begun."""
        return not self.claims.left or self.queue.stopped or not self._stored()

    def _stored(self) -> bool:
        """Whether the queue is there; it is removed when all is over."""
        return self.queue.exists or not is_there(self.queue.out)

    def work(self, wait: bool = True) -> None:
        """Take experiments until all are over, or until others have those that are left.

        Args:
            wait: for what others have: they may die.

        Raises:
            KeyboardInterrupt: when a signal asked to stop; the experiment is free again.
        """
        pause = SHORTEST
        while not self.over:
            if self.step():
                pause = SHORTEST
                continue
            if not wait and self.claims.all_taken:
                return
            stop_if(asked())
            time.sleep(pause)
            pause = min(LONGEST, 1.5 * pause)

    def step(self) -> bool:
        """Run an experiment that is free, and return whether there was one.

        Raises:
            KeyboardInterrupt: as above.
        """
        if self.over:
            return False
        try:
            claim = patiently(self.claims.next, self.queue.out)
        except FileNotFoundError:
            if self._stored():
                raise
            return False
        if claim is not None:
            self._take(claim)
        return claim is not None

    def _take(self, claim: Claim) -> None:
        lease = claim.lease
        try:
            with lease.kept():
                self._tell(claim.name, None)
                outcome = self._outcome(claim)
                if not lease.lost:
                    patiently(lambda: self.queue.finish(claim.name, outcome), self.queue.folder)
                    self._tell(claim.name, outcome)
        except KeyboardInterrupt:
            if not lease.lost or asked() != LOST:
                raise
            forget()
        finally:
            lease.release()

    def _tell(self, name: str, outcome: Outcome | None) -> None:
        if self.on_change is not None:
            self.on_change(name, outcome)

    def _outcome(self, claim: Claim) -> Outcome:
        log = self.queue.layout(claim.name).log
        if (deaths := claim.lease.terms.deaths) > RETRIES:
            why = f"the process that ran it died {deaths} times, see {log}"
            return Outcome(f"{why}; {RESUME_HINT}")
        patiently(lambda: log.parent.mkdir(parents=True, exist_ok=True), self.queue.out)
        with written_to(log) if self.logged else nullcontext():
            try:
                return self._run(claim)
            except (CembenchError, OSError) as error:
                return Outcome(str(error))
            except Exception as error:
                with log.open("a") as file:
                    traceback.print_exc(file=file)
                return Outcome(f"unexpected {error!r}; {log} shows where")

    def _run(self, claim: Claim) -> Outcome:
        """Run an experiment, again when that may help.

        It helps where the store was away, where a process died, and where the process that had the
        experiment before still saves its work.
        """
        away, busy, deaths = pauses(), pauses(self.patience), iter(range(RETRIES))
        while True:
            try:
                return self.run(claim.name, claim.diverged)
            except Busy:
                if next(busy, None) is None:
                    raise
            except Died:
                if next(deaths, None) is None:
                    raise
            except (CembenchError, OSError) as error:
                gone = is_away(error, self.queue.folder)
                if not gone or not any(self.queue.exists for _ in away):
                    raise

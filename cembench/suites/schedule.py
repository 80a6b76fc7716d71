"""Schedule: runs each experiment of a suite once those that it starts from are over."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping

from cembench.suites.launchers.job import Outcome, Started
from cembench.util.stopping import asked, stop_if

PAUSE = 0.25  # seconds from one look at what runs to the next

Start = Callable[[str, str | None], Started]
OnUpdate = Callable[[Collection[str], Mapping[str, Outcome]], None]


def schedule(
    needs: Mapping[str, frozenset[str]], start: Start, limit: int | None, on_update: OnUpdate
) -> dict[str, Outcome]:
    """Run experiments and return their outcomes.

    Args:
        needs: the names of the experiments in their order, each with those that it starts from.
        start: starts the experiment of a name. It is also given the name of one that this one
            starts from, if training of that one diverged.
        limit: how many may run at once; None for no limit.
        on_update: is given, every now and then, the names of those that run, and the outcomes of
            those that have just ended.
    """
    waiting = dict(needs)
    running: dict[str, Started] = {}
    outcomes: dict[str, Outcome] = {}
    while waiting or running:
        ready = [name for name, before in waiting.items() if before <= outcomes.keys()]
        for name in ready[: None if limit is None else limit - len(running)]:
            diverged = [base for base in waiting.pop(name) if outcomes[base].diverged]
            running[name] = start(name, next(iter(diverged), None))
        polled = {n: it if isinstance(it, Outcome) else it() for n, it in running.items()}
        over = {name: outcome for name, outcome in polled.items() if outcome is not None}
        running = {name: it for name, it in running.items() if name not in over}
        outcomes |= over
        on_update(running.keys(), over)
        stop_if(asked())  # Python drops an exception in a destructor, and with it a Ctrl-C
        if not over:
            time.sleep(PAUSE)
    return outcomes

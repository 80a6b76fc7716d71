"""Progress of a suite on stderr."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext

from rich.console import Console
from rich.live import Live
from rich.text import Text

from cembench.suites.launchers.job import Job, Outcome


@contextmanager
def overview(
    jobs: Mapping[str, Job],
) -> Iterator[Callable[[Collection[str], Mapping[str, Outcome]], None]]:
    """Yield a function that is told which jobs run and which have just ended.

    It prints a line for each that has ended. On a terminal it also shows how many have, and the
    last line in the log of each job that runs.
    """
    console = Console(stderr=True)
    ended: dict[str, Outcome] = {}
    with Live(console=console, transient=True) if console.is_terminal else nullcontext() as live:

        def update(running: Collection[str], over: Mapping[str, Outcome]) -> None:
            ended.update(over)
            for name, outcome in over.items():
                end = "done" if outcome.failure is None else f"failed: {outcome.failure}"
                line = f"{name}: {' '.join(end.split())}"
                console.print(line, markup=False, highlight=False, soft_wrap=True)
            if live is not None:
                lines = [f"  {name}  {jobs[name].last_line()[-60:]}" for name in sorted(running)]
                count = f"{len(ended)} of {len(jobs)} experiments have ended"
                live.update(Text("\n".join([count, *lines])))

        yield update

"""Progress of a suite on stderr: a row for each experiment that is over, and the time left."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext

from rich.box import SIMPLE
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cembench.evaluation.record import Record
from cembench.suites.cost import TimeLeft
from cembench.suites.outcomes import Outcome
from cembench.suites.rows import cells, line
from cembench.util.display.format import roughly
from cembench.util.progress import Screen, stderr


class Overview:
    """What is known of the experiments of a suite, as a table that grows and a line below it.

    Attributes:
        names: of the experiments.
        left: the time left; None where nobody knows.
        rows: cells by heading of those that are over.
        running: the last line in the log of each that runs in another process.
    """

    def __init__(self, names: Collection[str], left: TimeLeft | None) -> None:
        self.names, self.left = names, left
        self.rows: list[dict[str, str]] = []
        self.running: dict[str, str] = {}

    @property
    def status(self) -> str:
        """How many are over, and the time left."""
        count = f"{len(self.rows)} of {len(self.names)} experiments done"
        known = self.left is not None and len(self.rows) < len(self.names)
        return f"{count}, {roughly(self.left.seconds)} left" if known and self.left else count

    def __rich__(self) -> RenderableType:
        lines = [f"  {name}  {last}" for name, last in sorted(self.running.items()) if last]
        below = Text("\n".join([self.status, *lines]), overflow="ellipsis", no_wrap=True)
        return Group(self._table(), below) if self.rows else below

    def _table(self) -> Table:
        table = Table(box=SIMPLE)
        headings = dict.fromkeys(heading for row in self.rows for heading in row)
        for heading in headings:
            table.add_column(heading, no_wrap=heading == "run")
        for row in self.rows:
            table.add_row(*(Text(row.get(heading, "")) for heading in headings))
        return table


@contextmanager
def overview(
    names: Collection[str],
    record_of: Callable[[str], Record | None],
    left: TimeLeft | None,
    last_line: Callable[[str], str],
) -> Iterator[Callable[[Collection[str], Mapping[str, Outcome]], None]]:
    """Yield a function that is told which experiments run and which have just ended.

    On a terminal and in a notebook a table grows in place, above what runs; elsewhere each that
    ends is a line.

    Args:
        names: of all experiments.
        record_of: returns the record of one that is over.
        left: the time left, if it can be told.
        last_line: returns the last line in the log of one that runs.
    """
    console = stderr()
    known, screen = Overview(names, left), Screen(console)
    screen.above = known
    if not console.is_interactive:
        console.print(known.status, markup=False, highlight=False)
    with screen.shown() if console.is_interactive else nullcontext():

        def update(running: Collection[str], over: Mapping[str, Outcome]) -> None:
            if left is not None:
                left.update(running, over)
            for name, outcome in over.items():
                failure = outcome.failure
                record = record_of(name) if failure is None else None
                why = "" if failure is None else " ".join(f"failed: {failure}".split())
                row = {} if record is None else cells(record)
                known.rows.append({"run": name, **row, **({"error": why} if why else {})})
                if not console.is_interactive:
                    text = why or ("done" if record is None else line(record))
                    shown = f"{name}: {text} ({known.status})"
                    console.print(shown, markup=False, highlight=False, soft_wrap=True)
            known.running = {name: last_line(name).partition(": ")[2] for name in running}

        yield update

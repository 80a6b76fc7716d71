"""`cembench status`: how far the suites in a folder are."""

from __future__ import annotations

from pathlib import Path

import click

from cembench.cli.base import OUT, Command, say
from cembench.util.errors import CembenchError


@click.command("status", cls=Command, example="--out /shared/runs")
@OUT
def command(out: Path) -> None:
    """Say how far suites are: what is done, begun and failed.

    Of what is begun it names the machine and the process, and the last line of its log.
    """
    from cembench.suites.leases import Watch
    from cembench.suites.outcomes import last_line
    from cembench.suites.queue import Queue, queues

    if not (names := queues(out)):
        raise CembenchError(f"{out}: no suite is running or stored here")
    for name in names:
        queue = Queue.read(out, name)
        count = queue.count()
        say(f"{name}: {count.text}")
        for one in count.taken:
            watch = Watch(queue.folder, one)
            free = watch.is_free(float("inf"))
            state = "waits" if free else f"on {watch.terms.node or 'unknown'} {watch.terms.pid}"
            say(f"  {one}: {state}  {last_line(queue.layout(one).log)}")
        for one, why in queue.failures.items():
            say(f"  {one}: failed: {' '.join(why.split())}")

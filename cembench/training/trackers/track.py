"""All trackers of a run: none may change it, and a failing one never ends it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from cembench.training.trackers import RunInfo, Tracker, TrackerRun
from cembench.util.rng import fork_rng

COSTS = ("divergences", "gradients", "seconds")


@contextmanager
def track(
    trackers: Sequence[Tracker], run: RunInfo, warn: Callable[[str], None]
) -> Iterator[TrackerGroup]:
    """Open all trackers of a run for a while.

    Args:
        trackers: what follows it.
        run: the run.
        warn: told a line when a tracker fails; it hears no more of the run then.
    """
    group = TrackerGroup(trackers, run, warn)
    failed = True
    try:
        yield group
        failed = False
    finally:
        group.close(failed)


class TrackerGroup:
    """The trackers of a run that work."""

    def __init__(
        self, trackers: Sequence[Tracker], run: RunInfo, warn: Callable[[str], None]
    ) -> None:
        self._warn = warn
        self._logs: dict[str, TrackerRun] = {}
        for tracker in trackers:
            with self._surviving(tracker.name):
                self._logs[tracker.name] = tracker.open(run)

    def write(self, history: Sequence[Mapping[str, float]]) -> None:
        """Tell each tracker the epochs, a row each, that it does not know."""
        for name, log in list(self._logs.items()):
            with self._surviving(name):
                for row in history[log.known :]:
                    log.write(int(row["epoch"]), tagged(row))
                    log.known = int(row["epoch"])

    def close(self, failed: bool) -> None:
        """Close all that are open."""
        for name, log in list(self._logs.items()):
            with self._surviving(name):
                log.close(failed)

    @contextmanager
    def _surviving(self, name: str) -> Iterator[None]:
        try:
            with fork_rng():
                yield
        except Exception as error:  # whatever a service or a plugin comes up with
            self._logs.pop(name, None)
            reason = (str(error).splitlines() or [repr(error)])[0]
            self._warn(f"tracker {name} failed: {reason}; the run goes on without it")


def tagged(row: Mapping[str, float]) -> dict[str, float]:
    """Return the columns of `history.csv` as tags: `train/loss`, `validation/robust_acc`."""
    return {_tag(key): value for key, value in row.items() if key != "epoch"}


def _tag(key: str) -> str:
    if key.startswith("val_"):
        return f"validation/{key.removeprefix('val_').replace('pgd_acc', 'robust_acc')}"
    return f"cost/{key}" if key in COSTS else f"train/{key}"

"""Trackers of a run: they cannot change it, and one that fails does not end it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from cembench.training.trackers import RunInfo, Tracker, TrackerRun
from cembench.util.rng import fork_rng

COST_COLUMNS = ("divergences", "gradients", "seconds")


@contextmanager
def track(
    trackers: Sequence[Tracker], run: RunInfo, warn: Callable[[str], None]
) -> Iterator[TrackerGroup]:
    """Open all trackers of a run for the duration of a `with` block.

    Args:
        trackers: the trackers.
        run: description of the run.
        warn: called with one line when a tracker fails; that tracker is dropped.
    """
    group = TrackerGroup(trackers, run, warn)
    failed = True
    try:
        yield group
        failed = False
    finally:
        group.close(failed)


class TrackerGroup:
    """Trackers of a run that have not failed."""

    def __init__(
        self, trackers: Sequence[Tracker], run: RunInfo, warn: Callable[[str], None]
    ) -> None:
        self._warn = warn
        self._runs: dict[str, TrackerRun] = {}
        for tracker in trackers:
            with self._surviving(tracker.name):
                self._runs[tracker.name] = tracker.open(run)

    def write(self, history: Sequence[Mapping[str, float]]) -> None:
        """Write the rows of epochs that a tracker does not have yet, to each tracker."""
        for name, run in list(self._runs.items()):
            with self._surviving(name):
                for row in history[run.known :]:
                    run.write(int(row["epoch"]), tagged(row))
                    run.known = int(row["epoch"])

    def close(self, failed: bool) -> None:
        """Close all that are open."""
        for name, run in list(self._runs.items()):
            with self._surviving(name):
                run.close(failed)

    @contextmanager
    def _surviving(self, name: str) -> Iterator[None]:
        try:
            with fork_rng():
                yield
        except Exception as error:  # user code, and services that raise anything
            self._runs.pop(name, None)
            reason = (str(error).splitlines() or [repr(error)])[0]
            self._warn(f"tracker {name} failed: {reason}; the run goes on without it")


def tagged(row: Mapping[str, float]) -> dict[str, float]:
    """Return the columns of `history.csv` as tags: `train/loss`, `validation/robust_acc`."""
    return {_tag(key): value for key, value in row.items() if key != "epoch"}


def _tag(key: str) -> str:
    if key.startswith("val_"):
        return f"validation/{key.removeprefix('val_').replace('pgd_acc', 'robust_acc')}"
    return f"cost/{key}" if key in COST_COLUMNS else f"train/{key}"

"""A suite in progress on stderr."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
)

from cembench.suites.launchers import Outcome


class Overview:
    """A suite in progress: a line for each experiment that is over, and a bar on a terminal.

    Below the bar stands what each experiment that runs last wrote to its log.
    """

    def __init__(self, logs: Mapping[str, Path]) -> None:
        self._logs = logs
        self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[note]}", markup=False),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._whole = self._progress.add_task("suite", total=len(logs), note="")
        self._lines: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def tell(self, running: set[str], over: Sequence[tuple[str, Outcome]]) -> None:
        """Say which are over, and show which run."""
        for name, outcome in over:
            end = "done" if outcome.failure is None else f"failed: {outcome.failure}"
            line = f"{name}: {' '.join(end.split())}"
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
            self._progress.advance(self._whole)
        if not self._console.is_terminal:
            return
        for name in self._lines.keys() - running:
            self._progress.remove_task(self._lines.pop(name))
        for name in sorted(running):
            if name not in self._lines:
                self._lines[name] = self._progress.add_task(f"  {name}", total=None, note="")
            self._progress.update(self._lines[name], note=_last_line(self._logs[name]))


def _last_line(log: Path) -> str:
    try:
        return (log.read_text(errors="replace").splitlines() or [""])[-1][-60:]
    except OSError:
        return ""

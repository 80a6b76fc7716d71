"""Runs: each record with its pictures and the history of its training."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cembench.evaluation.record import Record, of_run
from cembench.reporting.leaderboard import find_records, newest
from cembench.reporting.page.pictures import Picture, load_picture
from cembench.util.errors import CembenchError
from cembench.util.files import read_bytes
from cembench.util.files.layout import RunLayout


@dataclass(frozen=True)
class Run:
    """One record.

    Attributes:
        path: the file that it was read from.
        record: what it says.
        anchor: what it is called on a page; empty where there is none.
        history: of its training, one row per epoch; None where none is known.
        pictures: of its samples, those of the lead sampler first.
        missing: pictures that should be there.
    """

    path: Path
    record: Record
    anchor: str
    history: pd.DataFrame | None
    pictures: list[Picture]
    missing: list[Path]

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return self.path.parent.parent

    @property
    def link(self) -> str:
        """The link to it on a page."""
        return self.anchor and f"#{self.anchor}"

    @property
    def marks(self) -> list[tuple[str, str]]:
        """Warnings about the run: a kind and a few words each."""
        record = self.record
        failed = len(record.sanity_failed)
        found = record.generation.samplers.items() if record.generation is not None else ()
        marks = [("error", "error")] if record.error is not None else []
        marks += [] if record.finished else [("unfinished", "unfinished")]
        marks += [("error", f"{title} failed") for title, one in found if one.error is not None]
        marks += [("doubt", f"{failed} sanity check{'s' * (failed > 1)} failed")] if failed else []
        marks += [("doubt", "unchecked")] if record.unchecked else []
        return marks


def gather(paths: Iterable[Path]) -> list[Run]:
    """Read the records below run folders that are ranked, with the files beside them.

    Raises:
        CembenchError: when a path holds no record, or a file is damaged.
    """
    found = find_records(paths)
    kept = {id(record) for record in newest(found.values())}
    runs = [(path, record) for path, record in found.items() if id(record) in kept]
    return [_run(path, record, number) for number, (path, record) in enumerate(runs)]


def labelled(runs: Iterable[Run]) -> dict[str, Run]:
    """Return runs by names that tell them apart."""
    named: dict[str, Run] = {}
    for run in runs:
        name, number = run.record.run, 2
        while name in named:
            name, number = f"{run.record.run} ({number})", number + 1
        named[name] = run
    return named


def by_record(runs: Sequence[Run]) -> dict[int, Run]:
    """Return runs by the identity of their records, as boards hold them."""
    return {id(run.record): run for run in runs}


def _run(path: Path, record: Record, number: int) -> Run:
    pictures, missing = [], []
    samplers = record.generation.samplers if record.generation is not None else {}
    for title, found in samplers.items():
        if found.error is not None:
            continue
        for strip, place in ((False, RunLayout.picture), (True, RunLayout.trajectory)):
            file = place(path, title)
            if file.exists():
                pictures.append(load_picture(file, title, strip))
            elif not strip:
                missing.append(file)
    history = _history(path.parent.parent / "history.csv") if of_run(path, record) else None
    return Run(path, record, f"run-{number}", history, pictures, missing)


def _history(file: Path) -> pd.DataFrame | None:
    if not file.exists():
        return None
    content = io.BytesIO(read_bytes(file))
    try:
        frame = pd.read_csv(content).astype(float)
        if frame.empty or not {"epoch", "loss"} <= set(frame):
            raise ValueError("columns are missing")
    except ValueError as error:
        damaged = f"{file}: not the history of a training, or damaged; restore it, or delete it"
        raise CembenchError(damaged) from error
    return frame

"""Runs: each record with its pictures and the history of its training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cembench.evaluation.record import Record
from cembench.evaluation.record.files import layout_of
from cembench.reporting.history import History, read_history
from cembench.reporting.leaderboard import find_records, newest
from cembench.reporting.page.panels import Panels, tell
from cembench.reporting.page.pictures import Kind, Picture, load_picture
from cembench.util.files.layout import RunLayout


@dataclass(frozen=True)
class Run:
    """One record.

    Attributes:
        path: the file that it was read from.
        record: what it says.
        anchor: what it is called on a page; empty where there is none.
        history: of its training; None where none is known.
        pictures: of its samples, those of the lead sampler first.
        missing: pictures that should be there.
        problems: panels whose files could not be read, and why.
        page: the address of the page that shows it; empty for the page with the link.
    """

    path: Path
    record: Record
    anchor: str
    history: History | None
    pictures: list[Picture]
    missing: list[Path]
    problems: list[str]
    page: str = ""

    @property
    def checkpoint(self) -> Path:
        """The place of the checkpoint, which records under several protocols may share."""
        return layout_of(self.path, self.record).checkpoint

    @property
    def collection(self) -> Path | None:
        """The collection that the record was read from, if any: it has no files beside it."""
        return RunLayout.collection(self.path)

    @property
    def link(self) -> str:
        """The link to it."""
        return self.anchor and f"{self.page}#{self.anchor}"

    @property
    def marks(self) -> list[tuple[str, str]]:
        """Warnings about the run: a kind and a few words each."""
        record = self.record
        failed = len(record.sanity_failed)
        found = record.generation.samplers.items() if record.generation is not None else ()
        marks = [("error", "error")] if record.error is not None else []
        marks += [] if record.finished else [("unfinished", "unfinished")]
        marks += [("error", f"{title} failed") for title, one in found if one.error is not None]
        marks += [("doubt", "checkpoint replaced")] if record.replaced else []
        marks += [("doubt", "files not readable")] if self.problems else []
        marks += [("doubt", f"{failed} sanity check{'s' * (failed > 1)} failed")] if failed else []
        marks += [("doubt", "unchecked")] if record.unchecked else []
        marks += [("doubt", "not re-run")] if record.accepted == "not re-run" else []
        return marks


def gather(paths: Iterable[Path]) -> list[Run]:
    """Read the records below run folders that are ranked, with the files beside them.

    A file that cannot be read is logged, and its panel is missing.

    Raises:
        CembenchError: when a path holds no record, or a record is damaged.
    """
    found = ranked(find_records(paths))
    runs = [read_run(*one, f"run-{number}") for number, one in enumerate(found.items())]
    tell(problem for run in runs for problem in run.problems)
    return runs


def ranked(found: Mapping[Path, Record]) -> dict[Path, Record]:
    """Return the records that are ranked, by their files."""
    kept = {id(record) for record in newest(found.values())}
    return {path: record for path, record in found.items() if id(record) in kept}


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


def read_run(path: Path, record: Record, anchor: str, *, pictures: bool = True) -> Run:
    """Return a record with the files beside it.

    Args:
        path: its file.
        record: what it says.
        anchor: what the run is called on a page.
        pictures: whether to read pictures too.
    """
    panels, history = Panels(), None
    there, missing = _pictures(path, record) if pictures else ([], [])
    read = [panels.make(_panel(*one[1:]), partial(load_picture, *one)) for one in there]
    found = [picture for picture in read if picture is not None]
    file = layout_of(path, record).history
    if file.exists():
        history = panels.make("training history", partial(read_history, file, record))
    return Run(path, record, anchor, history, found, missing, panels.lines)


def _panel(sampler: str, kind: Kind) -> str:
    return f"{'trajectories' if kind == 'chains' else 'samples'} of {sampler}"


def _pictures(path: Path, record: Record) -> tuple[list[tuple[Path, str, Kind]], list[Path]]:
    """Return the pictures of a record with their samplers and kinds, and those that are missing."""
    samplers = {} if record.generation is None else record.generation.samplers
    titles = [title for title, found in samplers.items() if found.error is None]
    edited = [] if record.counterfactuals is None else list(record.counterfactuals.balls)
    all_of: list[tuple[Path, str, Kind]] = []
    for title in titles:
        all_of.append((RunLayout.picture(path, title), title, "grid"))
        all_of.append((RunLayout.trajectory(path, title), title, "chains"))
    all_of += [(RunLayout.picture(path, title), title, "edited") for title in edited]
    kept = () if RunLayout.collection(path) else all_of
    missing = [file for file, _, kind in kept if kind != "chains" and not file.exists()]
    return [one for one in all_of if one[0].exists()], missing

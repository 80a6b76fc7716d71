"""A suite run: each experiment once, wherever it runs, and one ranking of all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cembench.suites.cost import TimeLeft, expected_seconds, loaded_size, tiny
from cembench.suites.following import Alone, Tend, follow, together
from cembench.suites.launchers import local, open_launcher
from cembench.suites.launchers.crew import Crew
from cembench.suites.launchers.job import Job, Poll
from cembench.suites.launchers.settings import Request
from cembench.suites.outcomes import Outcome, last_line
from cembench.suites.queue import FOLDER, Queue, place_of
from cembench.suites.sizes import Images
from cembench.suites.storing import store
from cembench.suites.suite import load_suite
from cembench.suites.worker import Worker
from cembench.training.config import Experiment
from cembench.util.devices import pick_device
from cembench.util.errors import CembenchError
from cembench.util.files.layout import RunLayout
from cembench.util.files.locks import locked
from cembench.util.lazy import lazy_imports
from cembench.util.registry import named_plugins
from cembench.util.shared import sharing

with lazy_imports():
    import torch

    from cembench.evaluation.record import Record
    from cembench.evaluation.record.files import load_record
    from cembench.reporting.leaderboard import Board, build_boards, find_records, write_boards
    from cembench.suites.progress import overview
    from cembench.suites.runner import Runner


@dataclass(frozen=True)
class SuiteResult:
    """What became of a suite.

    Attributes:
        boards: all runs ranked; none for encoders of which the protocol measures nothing.
        failures: a message for each experiment that failed.
        records: of its experiments that went well, by file.
        left: how many were not begun, since too many failed.
    """

    boards: list[Board]
    failures: list[str]
    records: dict[Path, Record]
    left: int = 0


def run_suite(
    path: Path,
    out: Path,
    device: str,
    inception_weights: Path | None = None,
    *,
    jobs: int | None = None,
    launcher: str = "local",
    settings: dict[str, Any] | None = None,
    max_failures: int | None = None,
) -> SuiteResult:
    """Train and evaluate what is not done yet; rank all runs of `out` in `out/leaderboards/`.

    Experiments that fail are skipped; the others go on.

    Args:
        path: the suite file.
        out: the folder of runs, which all machines must see.
        device: where an experiment runs: `auto`, `cpu`, `cuda`, `cuda:1`, … or `mps`.
        inception_weights: weights for the extractors inception and dinov2.
        jobs: how many run at once. Unless given, as many as there are elsewhere; on this machine
            one with all threads, or one with one thread on each core where networks are tiny.
        launcher: `local`, `ray` or `submitit`.
        settings: what the launcher takes.
        max_failures: failures after which the others are stopped; they save their state.

    Raises:
        CembenchError: when the suite file is wrong, every experiment failed, or another command
            runs the suite in this folder.
    """
    suite = SuiteRun(path, out, device, inception_weights)
    if launcher == "local":
        if settings:
            raise CembenchError("--launcher-set: the launcher local has no settings")
        local.require_cores(jobs or 1)
    with sharing(), suite.stored(max_failures) as queue:
        outcomes = suite.run_all(queue, launcher, jobs, settings or {})
        queue.remove()
    failures = [
        f"experiment {name}: {outcomes[name].failure}"
        for name in suite.experiments
        if name in outcomes and outcomes[name].failure is not None
    ]
    left = len(suite.experiments) - len(outcomes)
    if not RunLayout.records_below(out):
        if failures:
            raise CembenchError(f"{path}: {'; '.join(failures)}")
        return SuiteResult([], [], {}, left)
    own = {suite.record_file(name): record for name, record in suite.written.items()}
    return SuiteResult(rank(out, own), failures, own, left)


def rank(out: Path, own: dict[Path, Record] | None = None) -> list[Board]:
    """Write the tables of all runs in a folder; `own` are records that were read already."""
    boards = build_boards(find_records([out], own or {}).values())
    write_boards(boards, out / "leaderboards")
    return boards


class SuiteRun:
    """A suite that was read from its file, and the ways to run its experiments."""

    def __init__(self, path: Path, out: Path, device: str, inception_weights: Path | None) -> None:
        self.path, self.out, self.device = path, out, device
        self.inception_weights = inception_weights
        self.experiments, self.protocol = load_suite(path, out)
        self.written: dict[str, Record] = {}  # of experiments that went well

    @contextmanager
    def stored(self, max_failures: int | None = None) -> Iterator[Queue]:
        """Store the suite beside its runs, and yield its queue; no other command may meanwhile.

        Raises:
            Busy: when another command runs it.
        """
        place = place_of(self.out, self.path.stem)
        try:
            with locked(place.with_name(f"{place.name}.lock"), str(self.out)):
                yield store(
                    self.out,
                    self.path.stem,
                    self.experiments,
                    self.protocol,
                    {name: self._needs(one) for name, one in self.experiments.items()},
                    device=self.device,
                    inception_weights=self.inception_weights,
                    plugins=named_plugins(),
                    max_failures=max_failures,
                )
        finally:
            with suppress(OSError):  # of other suites, or of an earlier command
                (self.out / FOLDER).rmdir()

    def run_all(
        self, queue: Queue, launcher: str, jobs: int | None, settings: dict[str, Any]
    ) -> dict[str, Outcome]:
        """Run all experiments and return their outcomes."""
        left = None
        if launcher == "local":
            self.device = pick_device(self.device)
            jobs, threads = self.shares(jobs, loaded_size)
            opened = self._local(queue, jobs, threads)
            left = self._time_left(jobs, threads)
        else:
            opened = self._elsewhere(queue, launcher, jobs, settings)
        with opened as tend, overview(self.experiments, self.record, left, self._said) as update:
            return follow(queue, tend, lambda look: update(look.running, look.news))

    @property
    def processes(self) -> int:
        """The most processes that an experiment has."""
        return max(one.processes for one in self.experiments.values())

    def shares(self, jobs: int | None, size: Callable[[Experiment], Images]) -> tuple[int, int]:
        """Return how many experiments run at once on this machine, with how many threads each.

        Args:
            jobs: how many were asked for, if any were.
            size: returns what is known of the data of an experiment.
        """
        threads = torch.get_num_threads()
        if jobs is None:
            jobs = self._jobs(size)
            return jobs, 1 if jobs > 1 else threads
        return jobs, local.threads(jobs) if jobs > 1 else threads

    def _jobs(self, size: Callable[[Experiment], Images]) -> int:
        several = min(local.cores() // self.processes, len(self.experiments))
        if self.device != "cpu" or several == 1 or not local.may_fork():
            return 1
        return several if tiny(self.experiments.values(), size) else 1

    def _time_left(self, jobs: int, threads: int) -> TimeLeft | None:
        if self.device != "cpu":
            return None
        open_ = {n: e for n, e in self.experiments.items() if not self.record_file(n).exists()}
        expected = expected_seconds(open_, self.protocol, threads)
        if open_ and not expected:
            return None
        return TimeLeft(dict.fromkeys(self.experiments, 0.0) | expected, jobs)

    @contextmanager
    def _local(self, queue: Queue, jobs: int, threads: int) -> Iterator[Tend]:
        """Yield what runs experiments in this process, or in several on this machine."""
        run = Runner(queue, self.device)
        if jobs == 1:
            yield Alone(queue, run).tend
            return
        take = Worker(queue, run).work
        size = min(jobs, len(self.experiments))
        gpus = local.gpus(self.processes) if self.device == "cuda" else []
        with local.workers(local.Work(take, threads, named_plugins()), gpus) as start:
            yield together(Crew(start, size))

    @contextmanager
    def _elsewhere(
        self, queue: Queue, launcher: str, limit: int | None, settings: dict[str, Any]
    ) -> Iterator[Tend]:
        """Yield what runs experiments through workers of a launcher."""
        size = min(limit or len(self.experiments), len(self.experiments))
        request = Request(self.out / ".submitit", self.device, self.processes, dict(settings))
        with open_launcher(launcher, request) as start_jobs:

            def start(numbers: Sequence[int]) -> list[Poll]:
                jobs = [self._job(queue, number, wait=number >= size) for number in numbers]
                return start_jobs(jobs)

            yield together(Crew(start, size))

    def record(self, name: str) -> Record | None:
        """Return the record of an experiment that went well; None where nothing was measured."""
        file = self.record_file(name)
        if file.exists():
            self.written[name] = load_record(file)
        return self.written.get(name)

    def record_file(self, name: str) -> Path:
        """Return the file of the record of an experiment."""
        return RunLayout(self.out / name).record(self.protocol.name)

    def _said(self, name: str) -> str:
        return last_line(RunLayout(self.out / name).log)

    def _job(self, queue: Queue, number: int, wait: bool) -> Job:
        """Return the command line of a worker; it need not wait while the dead are replaced."""
        arguments = ["work", str(self.out), "--suite", queue.name, "--debug"]
        arguments += ["--wait" if wait else "--no-wait"]
        for module in named_plugins():
            arguments += ["--plugin", module]
        log = place_of(self.out, queue.name) / f"worker-{number}.log"
        return Job(tuple(arguments), log, Path.cwd())

    def _needs(self, experiment: Experiment) -> frozenset[str]:
        start = experiment.pretrained
        if start is None:
            return frozenset()
        place, out = Path(start.checkpoint), self.out
        found = {place.name, place.parent.name} & self.experiments.keys()
        return frozenset(name for name in found if place in (out / name, out / name / place.name))

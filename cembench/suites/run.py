"""A suite run: each experiment once, wherever it runs, and one ranking of all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cembench.suites.cost import TimeLeft, expected_seconds, tiny
from cembench.suites.launchers import local, open_launcher
from cembench.suites.launchers.job import RESUME_HINT, Job, Outcome, Started, last_line
from cembench.suites.schedule import Start, schedule
from cembench.suites.suite import load_suite
from cembench.training.config import Experiment
from cembench.util.devices import pick_device
from cembench.util.errors import CembenchError
from cembench.util.files import digest
from cembench.util.files.layout import RunLayout
from cembench.util.lazy import lazy_imports
from cembench.util.registry import named_plugins
from cembench.util.shared import sharing

with lazy_imports():
    import torch

    from cembench.evaluation.record import Record
    from cembench.evaluation.record.files import load_record
    from cembench.reporting.leaderboard import Board, build_boards, find_records, write_boards
    from cembench.suites.experiment import run_experiment
    from cembench.suites.progress import overview


@dataclass(frozen=True)
class SuiteResult:
    """What became of a suite.

    Attributes:
        boards: all runs ranked; none for encoders of which the protocol measures nothing.
        failures: a message for each experiment that failed.
        records: of its experiments that went well, by file.
    """

    boards: list[Board]
    failures: list[str]
    records: dict[Path, Record]


def run_suite(
    path: Path,
    out: Path,
    device: str,
    inception_weights: Path | None = None,
    *,
    jobs: int | None = None,
    launcher: str = "local",
    settings: dict[str, Any] | None = None,
) -> SuiteResult:
    """Train and evaluate what is not done yet; rank all runs of `out` in `out/leaderboards/`.

    Experiments that fail are skipped; the others go on.

    Args:
        path: the suite file, which all machines must see.
        out: the folder of runs, which all machines must see.
        device: where an experiment runs: `auto`, `cpu`, `cuda`, `cuda:1`, … or `mps`.
        inception_weights: weights for the extractors inception and dinov2.
        jobs: how many run at once. Unless given, as many as there are elsewhere; on this machine
            one with all threads, or one with one thread on each core where networks are tiny.
        launcher: `local`, `ray` or `submitit`.
        settings: what the launcher takes.

    Raises:
        CembenchError: when the suite file is wrong or every experiment failed.
    """
    suite = SuiteRun(path, out, device, inception_weights)
    with sharing():
        outcomes = suite.run_all(launcher, jobs, settings or {})
    failures = [
        f"experiment {name}: {outcomes[name].failure}"
        for name in suite.experiments
        if outcomes[name].failure is not None
    ]
    if not RunLayout.records_below(out):
        if failures:
            raise CembenchError(f"{path}: {'; '.join(failures)}")
        return SuiteResult([], [], {})
    own = {suite.record_file(name): record for name, record in suite.written.items()}
    boards = build_boards(find_records([out], own).values())
    write_boards(boards, out / "leaderboards")
    return SuiteResult(boards, failures, own)


class SuiteRun:
    """A suite that was read from its file, and the ways to run one of its experiments."""

    def __init__(self, path: Path, out: Path, device: str, inception_weights: Path | None) -> None:
        self.path, self.out, self.device = path, out, device
        self.inception_weights = inception_weights
        self.experiments, self.protocol = load_suite(path, out)
        self.written: dict[str, Record] = {}  # of experiments that went well

    @property
    def needs(self) -> dict[str, frozenset[str]]:
        """The names of the experiments, each with those of the suite that it starts from."""
        return {name: self._needs(one) for name, one in self.experiments.items()}

    def run(self, name: str, diverged: str | None = None) -> Outcome:
        """Run an experiment in this process, or record that the one it starts from diverged."""
        return run_experiment(
            self.experiments[name],
            self.out / name,
            self.protocol,
            pick_device("auto" if diverged else self.device),
            self.inception_weights,
            None if diverged is None else self.out / diverged,
        )

    def run_all(
        self, launcher: str, jobs: int | None, settings: dict[str, Any]
    ) -> dict[str, Outcome]:
        """Run all experiments and return their outcomes."""
        if launcher == "local":
            if settings:
                raise CembenchError("--launcher-set: the launcher local has no settings")
            self.device = pick_device(self.device)
            threads = torch.get_num_threads()
            if jobs is None:
                jobs = self._jobs()
                threads = 1 if jobs > 1 else threads
            elif jobs > 1:
                local.require_cores(jobs)
                threads = local.threads(jobs)
            opened = self._local(jobs, threads)
            left = self._time_left(jobs, threads)
        else:
            opened, left = self._elsewhere(launcher, jobs, settings), None
        with opened as start, overview(self.experiments, self.record, left, self._said) as update:
            return schedule(self.needs, start, jobs, update)

    def _jobs(self) -> int:
        """Return how many experiments to run at once on this machine."""
        several = min(local.cores(), len(self.experiments))
        return several if self.device == "cpu" and several > 1 and self._tiny() else 1

    def _tiny(self) -> bool:
        return local.may_fork() and tiny(self.experiments.values())

    def _time_left(self, jobs: int, threads: int) -> TimeLeft | None:
        if self.device != "cpu":
            return None
        open_ = {n: e for n, e in self.experiments.items() if not self.record_file(n).exists()}
        expected = expected_seconds(open_, self.protocol, threads)
        if open_ and not expected:
            return None
        return TimeLeft(dict.fromkeys(self.experiments, 0.0) | expected, jobs)

    @contextmanager
    def _local(self, jobs: int, threads: int) -> Iterator[Start]:
        """Yield what runs experiments in this process, or in several on this machine."""
        if jobs == 1:
            yield self.run
            return
        work = local.Work(self.run, self._log, threads, named_plugins())
        gpus = local.gpus() if self.device == "cuda" else []
        with local.workers(work, min(jobs, len(self.experiments)), gpus) as start_in_worker:

            def start(name: str, diverged: str | None) -> Started:
                return start_in_worker(name) if diverged is None else self.run(name, diverged)

            yield start

    @contextmanager
    def _elsewhere(
        self, launcher: str, limit: int | None, settings: dict[str, Any]
    ) -> Iterator[Start]:
        """Yield what runs experiments as jobs of a launcher."""
        jobs = {name: self.job(name) for name in self.experiments}
        with open_launcher(launcher, self.out, limit, self.device, settings) as start_job:

            def start(name: str, diverged: str | None) -> Started:
                return start_job(jobs[name]) if diverged is None else self.run(name, diverged)

            yield start

    def record(self, name: str) -> Record | None:
        """Return the record of an experiment that went well; None where nothing was measured."""
        file = self.record_file(name)
        if file.exists():
            self.written[name] = load_record(file)
        return self.written.get(name)

    def record_file(self, name: str) -> Path:
        """Return the file of the record of an experiment."""
        return RunLayout(self.out / name).record(self.protocol.name)

    def _log(self, name: str) -> Path:
        return RunLayout(self.out / name).log

    def _said(self, name: str) -> str:
        return last_line(self._log(name))

    def job(self, name: str) -> Job:
        """Return the command line of an experiment."""
        arguments = ["run", str(self.path), "--out", str(self.out), "--device", self.device]
        arguments += ["--only", name, "--digest", self.digest(name), "--debug"]
        if self.inception_weights is not None:
            arguments += ["--inception-weights", str(self.inception_weights)]
        for module in named_plugins():
            arguments += ["--plugin", module]
        return Job(tuple(arguments), self._log(name), Path.cwd())

    def digest(self, name: str) -> str:
        """Identify the settings of an experiment and of the protocol."""
        return digest([self.experiments[name].dump(), self.protocol.dump()])

    def _needs(self, experiment: Experiment) -> frozenset[str]:
        start = experiment.pretrained
        if start is None:
            return frozenset()
        place, out = Path(start.checkpoint), self.out
        found = {place.name, place.parent.name} & self.experiments.keys()
        return frozenset(name for name in found if place in (out / name, out / name / place.name))


def run_one(
    path: Path,
    out: Path,
    device: str,
    inception_weights: Path | None,
    *,
    name: str,
    digest: str | None,
) -> Outcome:
    """Run one experiment of a suite in this process, and rank nothing: what a job does.

    Raises:
        CembenchError: when the suite file is wrong, holds no such experiment, or holds another one
            than `digest` identifies.
    """
    suite = SuiteRun(path, out, device, inception_weights)
    if name not in suite.experiments:
        raise CembenchError(f"{path}: no experiment {name}")
    if digest not in (None, suite.digest(name)):
        what = f"experiment {name} or its protocol changed after the suite was started"
        raise CembenchError(f"{path}: {what}; {RESUME_HINT}")
    return suite.run(name)

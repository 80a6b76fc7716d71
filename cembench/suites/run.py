"""A suite run: each experiment once, wherever it runs, and one ranking of all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cembench.suites.launchers import open_launcher
from cembench.suites.launchers.job import RESUME_HINT, Job, Outcome, Started
from cembench.suites.progress import overview
from cembench.suites.schedule import schedule
from cembench.suites.suite import load_suite
from cembench.training.config import Experiment
from cembench.util.devices import pick_device
from cembench.util.errors import CembenchError
from cembench.util.files import digest
from cembench.util.files.layout import RunLayout
from cembench.util.lazy import lazy_imports
from cembench.util.registry import named_plugins

with lazy_imports():
    from cembench.reporting.leaderboard import Board, build_boards, find_records, write_boards
    from cembench.suites.experiment import run_experiment


def run_suite(
    path: Path,
    out: Path,
    device: str,
    inception_weights: Path | None = None,
    *,
    jobs: int | None = None,
    launcher: str = "local",
    settings: dict[str, Any] | None = None,
) -> tuple[list[Board], list[str]]:
    """Train and evaluate what is not done yet; rank all runs of `out` in `out/leaderboards/`.

    Experiments that fail are skipped; the others go on.

    Args:
        path: the suite file, which all machines must see.
        out: the folder of runs, which all machines must see.
        device: where an experiment runs: `auto`, `cpu`, `cuda`, `cuda:1`, … or `mps`.
        inception_weights: weights for the extractor inception.
        jobs: how many run at once; one on this machine, and as many as there are elsewhere, unless
            given.
        launcher: `local`, `ray` or `submitit`.
        settings: what the launcher takes.

    Returns:
        The boards, none for encoders of which the protocol measures nothing, and a message for
        each experiment that failed.

    Raises:
        CembenchError: when the suite file is wrong or every experiment failed.
    """
    suite = SuiteRun(path, out, device, inception_weights)
    if launcher == "local":
        jobs = jobs or 1
        suite.device = pick_device(device)
    if launcher == "local" and jobs == 1 and not settings:
        outcomes = schedule(suite.needs, suite.run, 1, lambda running, over: None)
    else:
        outcomes = suite.launch(launcher, jobs, settings or {})
    failures = [
        f"experiment {name}: {outcomes[name].failure}"
        for name in suite.experiments
        if outcomes[name].failure is not None
    ]
    if not RunLayout.records_below(out):
        if failures:
            raise CembenchError(f"{path}: {'; '.join(failures)}")
        return [], []
    boards = build_boards(find_records([out]).values())
    write_boards(boards, out / "leaderboards")
    return boards, failures


class SuiteRun:
    """A suite that was read from its file, and the ways to run one of its experiments."""

    def __init__(self, path: Path, out: Path, device: str, inception_weights: Path | None) -> None:
        self.path, self.out, self.device = path, out, device
        self.inception_weights = inception_weights
        self.experiments, self.protocol = load_suite(path, out)

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

    def launch(
        self, launcher: str, limit: int | None, settings: dict[str, Any]
    ) -> dict[str, Outcome]:
        """Run all experiments as jobs of a launcher; return their outcomes."""
        jobs = {name: self.job(name) for name in self.experiments}
        opened = open_launcher(launcher, self.out, limit, self.device, settings)
        with opened as start_job, overview(jobs) as on_update:

            def start(name: str, diverged: str | None) -> Started:
                return start_job(jobs[name]) if diverged is None else self.run(name, diverged)

            return schedule(self.needs, start, limit, on_update)

    def job(self, name: str) -> Job:
        """Return the command line of an experiment."""
        arguments = ["run", str(self.path), "--out", str(self.out), "--device", self.device]
        arguments += ["--only", name, "--digest", self.digest(name), "--debug"]
        if self.inception_weights is not None:
            arguments += ["--inception-weights", str(self.inception_weights)]
        for module in named_plugins():
            arguments += ["--plugin", module]
        return Job(tuple(arguments), RunLayout(self.out / name).log, Path.cwd())

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

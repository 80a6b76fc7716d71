"""Doing a suite: each experiment once, wherever it runs, and one ranking of all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from cembench.data.split import hold_out, subset
from cembench.evaluation.evaluate import evaluate
from cembench.evaluation.protocol import Protocol
from cembench.evaluation.record import Record, save_record
from cembench.models.metadata import read_metadata
from cembench.models.recipe import recipe_of
from cembench.reporting.leaderboard import Board, find_records, rank, write_boards
from cembench.suites.launchers import Job, Launcher, Outcome, find_launcher
from cembench.suites.progress import Overview
from cembench.suites.suite import load_suite
from cembench.training.config import Experiment, parse_experiment
from cembench.training.run_folder import RunFolder
from cembench.training.train import train
from cembench.util.devices import pick_device
from cembench.util.errors import CembenchError, TrainingDiverged
from cembench.util.layout import RunLayout
from cembench.util.provenance import environment
from cembench.util.registry import add_plugin, named_plugins


def do(job: Job) -> Outcome:
    """Train and evaluate one experiment, as far as that is not done yet."""
    for module in job.plugins:
        add_plugin(module)
    experiment = parse_experiment(job.experiment, f"experiment {job.name}")
    protocol = Protocol.parse(job.protocol)
    device = pick_device(job.device)
    try:
        if job.hopeless is not None:
            raise TrainingDiverged(f"{job.hopeless}, which it starts from, gave up")
        return _done(job, experiment, protocol, device)
    except CembenchError as error:
        if isinstance(error, TrainingDiverged):
            _note(experiment, job.folder, protocol, str(error), device)
        return Outcome(str(error), isinstance(error, TrainingDiverged))


def _done(job: Job, experiment: Experiment, protocol: Protocol, device: str) -> Outcome:
    checkpoint = train(experiment, job.folder, resume=True, device=device)
    if protocol.measured_of(read_metadata(checkpoint).kind) is None:
        return Outcome()
    weights = None if job.inception_weights is None else Path(job.inception_weights)
    record, place = evaluate(
        checkpoint, protocol, device=device, inception_weights=weights, reuse=True
    )
    return Outcome(None if record.error is None else f"{record.error} ({place})")


def _note(experiment: Experiment, folder: Path, protocol: Protocol, why: str, device: str) -> None:
    """Leave a record of a run that diverged for good: a ranking without it would flatter."""
    state = RunFolder(folder).load()
    split = experiment.data.load("test")
    if protocol.split == "validation":
        split = hold_out(experiment.data.load("train"), experiment.validation.fraction)[1]
    record = Record(
        kind=experiment.method.kind,
        run=folder.name,
        method=experiment.title,
        dataset=experiment.data.title,
        model=experiment.model.title,
        seed=experiment.seed,
        recipe=recipe_of(experiment.dump()),
        epoch=0 if state is None else state.epoch,
        threat=protocol.threat.over(experiment.threat),
        protocol=protocol.dump(),
        protocol_digest=protocol.digest,
        split=protocol.split,
        data=experiment.data.dump(),
        fingerprint=subset(split, protocol.limit)[0].fingerprint,
        checkpoint_sha256="",
        gradients=0 if state is None else state.gradients,
        labels=experiment.labels,
        divergences=1 if state is None else state.divergences + 1,
        environment=environment(torch.device(device)),
        error=f"training diverged: {why}",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    save_record(RunLayout(folder).record(protocol.name), record, None)


class InProcess(Launcher):
    """One experiment after the other, in this process."""

    jobs = 1

    def __init__(self) -> None:
        self._over: list[tuple[str, Outcome]] = []

    def start(self, job: Job) -> None:
        """Do an experiment."""
        self._over = [(job.name, do(job))]

    def wait(self, seconds: float) -> list[tuple[str, Outcome]]:
        """Return the one that is over."""
        over, self._over = self._over, []
        return over

    def stop(self) -> None:
        """Nothing runs."""


Told = Callable[[set[str], list[tuple[str, Outcome]]], None]


def spread(jobs: list[Job], launcher: Launcher, told: Told) -> dict[str, Outcome]:
    """Do experiments, each when those that it starts from are over; return what became of each.

    Args:
        jobs: the experiments, none before what it starts from.
        launcher: what starts them.
        told: is told, every now and then, which run and which are over.
    """
    waiting = {job.name: job for job in jobs}
    running: set[str] = set()
    outcomes: dict[str, Outcome] = {}
    while waiting or running:
        for job in [job for job in waiting.values() if not job.needs - outcomes.keys()]:
            lost = [name for name in job.needs if outcomes[name].gave_up]
            if lost:
                del waiting[job.name]
                start = str(Path(job.out) / lost[0])
                outcomes[job.name] = do(replace(job, hopeless=start, device="auto"))
                told(running, [(job.name, outcomes[job.name])])
            elif launcher.jobs is None or len(running) < launcher.jobs:
                del waiting[job.name]
                launcher.start(job)
                running.add(job.name)
        over = launcher.wait(0.5) if running else []
        running -= {name for name, _ in over}
        outcomes.update(over)
        told(running, over)
    return outcomes


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
        path: the suite file.
        out: the folder of runs, which all machines must see.
        device: `auto`, `cpu` or `cuda`, where an experiment runs.
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
    experiments, protocol = load_suite(path, out)
    weights = None if inception_weights is None else str(inception_weights)
    plan = protocol.dump()
    todo = [
        Job(
            name=name,
            experiment=_plain(experiment),
            protocol=plan,
            out=str(out),
            device=pick_device(device) if launcher == "local" else device,
            inception_weights=weights,
            needs=_needs(experiment, experiments, out),
            place=str(Path.cwd()),
            plugins=named_plugins(),
        )
        for name, experiment in experiments.items()
    ]
    outcomes = _outcomes(todo, launcher, out, jobs, settings or {})
    failures = [
        f"experiment {name}: {outcomes[name].failure}"
        for name in experiments
        if outcomes[name].failure is not None
    ]
    if not RunLayout.records_below(out):
        if failures:
            raise CembenchError(f"{path}: {'; '.join(failures)}")
        return [], []
    boards = rank(find_records([out]).values())
    write_boards(boards, out / "leaderboards")
    return boards, failures


def _outcomes(
    todo: list[Job], name: str, out: Path, jobs: int | None, settings: dict[str, Any]
) -> dict[str, Outcome]:
    if name == "local" and jobs in (None, 1) and not settings:
        return spread(todo, InProcess(), lambda running, over: None)
    launcher = find_launcher(name, out, jobs, todo[0].device, settings)
    try:
        with Overview({job.name: job.log for job in todo}) as overview:
            return spread(todo, launcher, overview.tell)
    finally:
        launcher.stop()


def _plain(experiment: Experiment) -> dict[str, Any]:
    return experiment.dump() | {"tracker": [tracker.dump() for tracker in experiment.tracker]}


def _needs(experiment: Experiment, experiments: dict[str, Experiment], out: Path) -> frozenset[str]:
    """Return the experiments of the suite that this one starts from."""
    start = experiment.pretrained
    if start is None:
        return frozenset()
    place = Path(start.checkpoint)
    found = {place.name, place.parent.name} & experiments.keys()
    return frozenset(name for name in found if place in (out / name, out / name / place.name))

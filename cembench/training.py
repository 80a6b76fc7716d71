"""Training an experiment in its run folder: begin, resume, roll back, finish."""

from __future__ import annotations

from pathlib import Path

import torch

from cembench.config import Experiment, placeless
from cembench.errors import CembenchError
from cembench.files import digest
from cembench.guard import isolated_rng
from cembench.locks import locked
from cembench.pretrained import resolved
from cembench.progress import Bar
from cembench.runs import RunFolder
from cembench.trackers import Followed
from cembench.trackers.follow import follow
from cembench.trainer import Diverged, Trainer


def train(
    config: Experiment, folder: Path, *, resume: bool = False, device: str | torch.device = "cpu"
) -> Path:
    """Train one experiment in its run folder and return the path of the kept checkpoint.

    An interrupted run resumed with the same settings ends with the same weights as one that was
    never stopped: bit for bit on the CPU of one machine with one number of threads.

    Args:
        config: the experiment.
        folder: where its files go.
        resume: go on with a run that is there, or return at once when it is finished.
        device: where to compute.

    Raises:
        CembenchError: for a folder in use, other settings than before, a non-finite loss (the
            state of the last good epoch stays in the folder), or a full disk.
    """
    run = RunFolder(folder)
    with locked(folder / ".lock", str(folder)):
        return _begun(config, run, resume, device)


def _begun(config: Experiment, run: RunFolder, resume: bool, device: str | torch.device) -> Path:
    config = resolved(config)
    if run.exists():
        if not resume:
            raise CembenchError(
                f"{run.path}: a run is there already; --resume it or choose a --name"
            )
        run.check_config(config)
        if (passport := run.finished()) is not None:
            run.check_own(run.model, placeless(passport.config) == config.identity)
            run.check_data(passport.fingerprint, config.data.load("train").fingerprint)
            return run.model
    for tracker in config.tracker:
        tracker.require()
    deterministic = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)
    with deterministic, isolated_rng(config.seed):
        _train(config, run, torch.device(device))
    return run.model


def _train(config: Experiment, run: RunFolder, device: torch.device) -> None:
    trainer = Trainer(config, device)
    run.begin(config)
    state = run.load()
    if state is None:
        run.save(trainer.state())
    else:
        run.check_own(run.state, state.config == digest(config.identity))
        run.check_data(state.data, trainer.fingerprint)
        trainer.restore(state)
        run.publish(state, trainer.passport(state))
    followed = Followed(run.path, run.path.name, config.dump(), begun=trainer.epoch > 0)
    with (
        Bar(run.path.name, config.epochs * trainer.steps * trainer.batch) as bar,
        follow(config.tracker, followed, bar.warn) as trail,
    ):
        trail.write(trainer.history)
        bar.advance(trainer.epoch * trainer.steps * trainer.batch)
        while trainer.epoch < config.epochs:
            try:
                state = trainer.run_epoch(bar)
            except Diverged as error:
                trainer.roll_back(run, error)
                run.save(trainer.state())
                bar.report(f"{error}; back to epoch {trainer.epoch} with new randomness")
                continue
            run.save(state)
            run.publish(state, trainer.passport(state))
            trail.write(trainer.history)

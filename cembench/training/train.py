"""Training of an experiment in its run folder: begin, resume, roll back, finish."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch

from cembench.data.loading import load_training
from cembench.data.roots import remember
from cembench.models.recipe import without_paths
from cembench.training.config import Experiment
from cembench.training.cost import CostBar
from cembench.training.divergence import Diverged
from cembench.training.optim import scale_learning_rate
from cembench.training.pretrained import resolved
from cembench.training.run_folder import RunFolder, State
from cembench.training.trackers import RunInfo
from cembench.training.trackers.track import track
from cembench.training.trainer import Trainer
from cembench.util.errors import CembenchError, TrainingDiverged
from cembench.util.files import digest
from cembench.util.files.locks import locked
from cembench.util.processes.distributed import world
from cembench.util.processes.process_group import restarted
from cembench.util.provenance import code_version
from cembench.util.rng import isolated_rng
from cembench.util.stopping import asked, postponed, stop_if

log = logging.getLogger("cembench")


def train(
    config: Experiment, folder: Path, *, resume: bool = False, device: str | torch.device = "cpu"
) -> Path:
    """Train one experiment in its run folder and return the path of the kept checkpoint.

    An interrupted run that is resumed with the same settings ends with the same weights as one that
    was never stopped: bit for bit on the CPU of one machine with one number of threads. A signal
    to stop, where signals are handled, ends the step and saves the state within the epoch.

    Args:
        config: the experiment.
        folder: run folder.
        resume: continue a run that is there, or return at once if it is finished.
        device: where to compute.

    Raises:
        CembenchError: for a folder in use, other settings than before, a non-finite loss (the state
            after the last good epoch stays in the folder), or a full disk.
    """
    run, ranks = RunFolder(folder), world()
    if ranks.size > 1:
        ranks.assert_same(configuration=digest(config.identity), code=code_version()["source"])
    with ExitStack() as stack:
        ranks.on_rank_zero(lambda: _hold(run, stack))
        ranks.require_shared_filesystem(folder)
        resume = resume or restarted()
        config, done = ranks.on_rank_zero(lambda: _checked(config, run, resume))
        if not done:
            exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)
            with exact, isolated_rng(config.seed):
                _train(config, run, torch.device(device))
    return run.checkpoint


def _hold(run: RunFolder, stack: ExitStack) -> None:
    stack.enter_context(locked(run.lock, str(run.folder)))


def _checked(config: Experiment, run: RunFolder, resume: bool) -> tuple[Experiment, bool]:
    """Return the experiment with its pretrained weights resolved, and whether it is finished."""
    remember(config.data)
    config = resolved(config)
    if run.exists():
        if not resume:
            raise CembenchError(
                f"{run.folder}: a run is there already; --resume it or choose a --name"
            )
        run.check_config(config)
        if (metadata := run.finished()) is not None:
            run.check_own(run.checkpoint, without_paths(metadata.config) == config.identity)
            data = load_training(config.data, config.validation.fraction)
            run.check_data(metadata.fingerprint, data.fingerprint)
            log.info("%s: finished with these settings, not trained again", run.checkpoint)
            return config, True
    for tracker in config.tracker:
        tracker.require()
    return config, False


def _train(config: Experiment, run: RunFolder, device: torch.device) -> None:
    ranks = world()
    trainer = ranks.on_all_ranks(lambda: Trainer(config, device))
    trainer.wrap_ddp()
    saved = ranks.on_all_ranks(lambda: _saved(config, run, trainer))
    for each in saved:
        trainer.restore(each)
    state = saved[0] if saved else trainer.state()
    for each in saved:
        log.info("%s: goes on after epoch %d", run.folder, each.epoch)
    ranks.on_rank_zero(lambda: _begin(config, run, trainer, state))
    info = RunInfo(run.folder, run.folder.name, config.dump(), resumed=trainer.epoch > 0)
    trackers = config.tracker if ranks.first else []
    with (
        CostBar(run.folder.name, trainer) as bar,
        track(trackers, info, bar.warn) as group,
        postponed(),
    ):
        if ranks.size > 1:
            bar.warn(
                f"{ranks.size} processes share each batch of {trainer.batch} images; the "
                f"learning rate is {config.optimizer.lr:g}, as in one process"
            )
        group.write(trainer.history)
        bar.advance(trainer.steps_done * trainer.batch)
        while trainer.epoch < config.epochs:
            try:
                state = trainer.run_epoch(bar)
            except Diverged as error:
                roll_back(trainer, run, error)
                state = trainer.state()
                ranks.on_rank_zero(partial(run.save, state))
                bar.warn(f"{error}; back to epoch {trainer.epoch} with new randomness")
                continue
            ranks.on_rank_zero(partial(_keep, run, trainer, state))
            group.write(trainer.history)
            stop_if(ranks.highest(asked()))


def roll_back(trainer: Trainer, run: RunFolder, error: Diverged) -> None:
    """Go back to the last saved epoch, with a lower learning rate.

    Raises:
        TrainingDiverged: when the policy is to stop, or after too many rollbacks.
    """
    settings = trainer.config.divergence
    policy = settings.policy or trainer.config.method.on_divergence
    state = run.load()
    if policy == "stop" or state is None or trainer.divergences >= settings.limit:
        often = f" ({trainer.divergences} times rolled back)" if trainer.divergences else ""
        raise TrainingDiverged(f"{run.folder}: {error}{often}") from error
    divergences, spent = trainer.divergences + 1, trainer.gradients
    trainer.restore(state)
    factor = settings.lower ** (divergences - state.divergences)
    scale_learning_rate(trainer.optimizer, trainer.scheduler, factor)
    trainer.divergences, trainer.gradients = divergences, spent


def _saved(config: Experiment, run: RunFolder, trainer: Trainer) -> list[State]:
    """Return the states that the run resumes from, after checking that they are its own.

    That after the last whole epoch comes first; the one within the next epoch may be missing.
    """
    whole = run.load()
    midway = None if whole is None else run.load_midway(whole)
    found = {run.resume_state: whole, run.midway_state: midway}
    for file, state in found.items():
        if state is not None:
            run.check_own(file, state.config == digest(config.identity))
            run.check_data(state.data, trainer.feed.fingerprint)
    return [state for state in found.values() if state is not None]


def _begin(config: Experiment, run: RunFolder, trainer: Trainer, state: State) -> None:
    run.begin(config)
    if not run.resume_state.exists():
        run.save(state)
    run.publish(state, trainer.metadata(state))


def _keep(run: RunFolder, trainer: Trainer, state: State) -> None:
    run.save(state)
    if state.midway is None:
        run.publish(state, trainer.metadata(state))

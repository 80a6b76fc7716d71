"""One experiment of a suite: trained and evaluated, as far as that is not done yet."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch

from cembench.data.loading import load_test, load_training
from cembench.data.roots import remember
from cembench.data.split import subset
from cembench.evaluation.evaluate import evaluate
from cembench.evaluation.protocol import Protocol
from cembench.evaluation.record.files import save_record
from cembench.evaluation.record.header import record_header
from cembench.interop.hub.cache import fetch_start
from cembench.models.recipe import recipe_of
from cembench.models.source import ModelSource
from cembench.suites.outcomes import Outcome
from cembench.training.config import Experiment
from cembench.training.run_folder import RunFolder
from cembench.training.train import train
from cembench.util.errors import TrainingDiverged, one_line
from cembench.util.files.layout import RunLayout
from cembench.util.processes.distributed import world


def run_experiment(
    experiment: Experiment,
    folder: Path,
    protocol: Protocol,
    device: str,
    inception_weights: Path | None = None,
    failed_dependency: Path | None = None,
) -> Outcome:
    """Train and evaluate one experiment; what is already done and unchanged is not done twice.

    When training diverges for good, or did for the run `failed_dependency` that this one starts
    from, a record says so.

    Raises:
        CembenchError: for anything else that goes wrong.
    """
    try:
        if failed_dependency is not None:
            raise TrainingDiverged(f"{failed_dependency}, which it starts from, gave up")
        fetch_start(experiment)
        source = ModelSource.at(train(experiment, folder, resume=True, device=device))
        if protocol.measured_of(source.metadata.kind) is None:
            return Outcome()
        for other in protocol.other_data:
            remember(other)
        record, path = evaluate(
            source, protocol, device=device, inception_weights=inception_weights, reuse=True
        )
        return Outcome(None if record.error is None else f"{record.error} ({path})")
    except TrainingDiverged as error:
        why = partial(save_divergence, experiment, folder, protocol, str(error), device)
        world().on_rank_zero(why)
        return Outcome(str(error), diverged=True)


def save_divergence(
    experiment: Experiment, folder: Path, protocol: Protocol, why: str, device: str
) -> None:
    """Save the record of a run whose training diverged: a ranking without it would flatter."""
    state = RunFolder(folder).load()
    split = load_test(experiment.data)
    if protocol.split == "validation":
        split = load_training(experiment.data, experiment.validation.fraction).held
    record = record_header(
        protocol,
        experiment.data,
        experiment.threat,
        subset(split, protocol.limit)[0],
        torch.device(device),
        kind=experiment.method.kind,
        run=folder.name,
        method=experiment.title,
        model=experiment.model.title,
        seed=experiment.seed,
        recipe=recipe_of(experiment.dump()),
        epoch=0 if state is None else state.epoch,
        checkpoint_sha256="",
        gradients=0 if state is None else state.gradients,
        labels=experiment.labels,
        divergences=1 if state is None else state.divergences + 1,
        error=one_line(f"training diverged: {why}"),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    save_record(RunLayout(folder).record(protocol.name), record, None)

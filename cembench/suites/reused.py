"""What of an experiment is done already and would be reused, as its run folder says."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch

from cembench.evaluation.protocol import Protocol
from cembench.evaluation.record.files import load_record
from cembench.training.config import Experiment
from cembench.training.pretrained import resolved
from cembench.training.run_folder import RunFolder
from cembench.util.errors import CembenchError
from cembench.util.files import sha256
from cembench.util.provenance import environment


class Reuse(NamedTuple):
    """What is done of an experiment.

    Attributes:
        epochs: epochs of training that are done.
        trained: whether training is finished.
        evaluated: whether its record would be reused.
        outdated: whether there is a record of other software, checkpoint or protocol.
        refused: why the run could not go on here.
    """

    epochs: int = 0
    trained: bool = False
    evaluated: bool = False
    outdated: bool = False
    refused: str = ""

    def words(self, epochs: int, evaluates: bool) -> str:
        """Return the state in a few words."""
        if self.refused:
            return "refused"
        if self.evaluated or (self.trained and not evaluates):
            return "done"
        if self.trained:
            return "trained; evaluates again" if self.outdated else "trained"
        return f"goes on after epoch {self.epochs} of {epochs}" if self.epochs else "new"


def reuse_of(
    experiment: Experiment, folder: Path, protocol: Protocol | None, device: torch.device
) -> Reuse:
    """Return what is done of an experiment in its run folder."""
    run = RunFolder(folder)
    if not run.exists():
        return Reuse()
    try:
        run.check_config(resolved(experiment))
        if run.finished() is None:
            return Reuse(epochs=_epochs(run))
    except CembenchError as error:
        return Reuse(refused=str(error))
    if protocol is None:
        return Reuse(experiment.epochs, trained=True)
    path = run.record(protocol.name)
    same = _same_record(path, run.checkpoint, protocol, device)
    return Reuse(experiment.epochs, True, same, path.exists() and not same)


def _epochs(run: RunFolder) -> int:
    """Return the rows of the history."""
    try:
        return max(0, len(run.history.read_text().splitlines()) - 1)
    except OSError:
        return 0


def _same_record(path: Path, checkpoint: Path, protocol: Protocol, device: torch.device) -> bool:
    """Return whether a record is of this checkpoint, protocol, software and kind of device."""
    try:
        record = load_record(path)
    except CembenchError:
        return False
    here = environment(device, protocol.libraries)
    machine = {key: value for key, value in here.items() if key not in ("commit", "dirty")}
    return (
        record.error is None
        and record.protocol_digest == protocol.digest
        and record.checkpoint_sha256 == sha256(checkpoint)
        and all(record.environment.get(key) == value for key, value in machine.items())
    )

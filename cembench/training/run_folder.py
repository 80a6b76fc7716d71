"""Run folder: its files, and their consistency when a run is killed."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from cembench.models.checkpoint import save_checkpoint
from cembench.models.metadata import CheckpointMetadata, read_metadata
from cembench.training.config import Experiment, parse_experiment
from cembench.training.epoch import Midway
from cembench.util.errors import CembenchError
from cembench.util.files import write_text
from cembench.util.files.layout import RunLayout
from cembench.util.files.seal import UNSEALED, open_sealed, sealing
from cembench.util.files.temporary import clear_leftovers
from cembench.util.files.tensors import write_tensors
from cembench.util.files.yaml import read_yaml, to_yaml
from cembench.util.stages import stage
from cembench.util.stopping import postponed


@dataclass
class State:
    """State of a run after an epoch or within one: what it resumes from, and what it publishes.

    Attributes:
        epoch: epochs done.
        data: fingerprint of the training split.
        config: digest of the settings.
        model: weights.
        optimizer: state of the optimizer.
        scheduler: state of the schedule.
        average: state of the moving average of the weights.
        history: one row per epoch.
        kept: weights of the selected epoch.
        kept_epoch: that epoch.
        kept_buffer: replay buffer of that epoch, N×C×H×W.
        divergences: times that training was rolled back.
        gradients: gradient evaluations, images times steps.
        buffer: replay buffer, N×C×H×W.
        midway: what is done of the next epoch; None after an epoch.
        memory: what the method keeps from step to step, plain values and tensors by name.
    """

    epoch: int
    data: str
    config: str
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    scheduler: dict[str, Any]
    average: dict[str, Tensor] | None
    history: list[dict[str, float]]
    kept: dict[str, Tensor]
    kept_epoch: int
    kept_buffer: Tensor | None
    divergences: int
    gradients: int
    buffer: Tensor | None
    midway: Midway | None = None
    memory: dict[str, Any] = field(default_factory=dict)


class RunFolder(RunLayout):
    """Files of a run, written in an order that keeps them consistent.

    The resume state is written first and holds everything that the other files are made from, so a
    run that is killed between two writes loses nothing: resuming writes them again.
    """

    def exists(self) -> bool:
        """Return whether a run was begun here."""
        return self.config.exists()

    def finished(self) -> CheckpointMetadata | None:
        """Return the metadata of the kept checkpoint if the run is finished."""
        metadata = read_metadata(self.checkpoint) if self.checkpoint.exists() else None
        return metadata if metadata is not None and metadata.finished else None

    def check_own(self, file: Path, same: bool) -> None:
        """Refuse a file of another run.

        Raises:
            CembenchError: naming the file.
        """
        if not same:
            raise CembenchError(f"{file}: of another run; put the right one back, or delete it")

    def check_data(self, before: str, now: str) -> None:
        """Refuse to resume with other training images than the run began with.

        Raises:
            CembenchError: naming the run.
        """
        if before != now:
            raise CembenchError(
                f"{self.folder}: the training data is not what it was when the run began; "
                "restore it, or give the new run another name or --out"
            )

    def check_config(self, config: Experiment) -> None:
        """Refuse to resume with other settings than the run began with.

        Raises:
            CembenchError: naming each setting that differs.
        """
        old = _flat(parse_experiment(read_yaml(self.config), str(self.config)).identity)
        new = _flat(config.identity)
        changed = [
            f"{key} was {old.get(key, 'absent')}, now {new.get(key, 'absent')}"
            for key in sorted({*old, *new})
            if old.get(key) != new.get(key)
        ]
        if changed:
            raise CembenchError(
                f"{self.config}: begun with another configuration: {'; '.join(changed)}; "
                "use the old settings, or give the new run another name or --out"
            )

    def begin(self, config: Experiment) -> None:
        """Save the resolved configuration, and delete files that a kill left half written."""
        clear_leftovers(self.folder)
        write_text(self.config, to_yaml(config.dump()))

    def save(self, state: State) -> None:
        """Save the state to resume from.

        One within an epoch has a file of its own: after a divergence, training goes back to the
        last whole epoch, whenever it was stopped.
        """
        path = self.resume_state if state.midway is None else self.midway_state
        with stage("saving"), postponed(), sealing(path) as file:  # torch would garble a signal
            torch.save(vars(state), file)
            file.write(UNSEALED.encode())
        if state.midway is None:
            self.midway_state.unlink(missing_ok=True)

    def publish(self, state: State, metadata: CheckpointMetadata) -> None:
        """Write history, replay buffer and checkpoint from the resume state.

        The checkpoint comes last: it says whether the run is finished, so no file may be missing.
        """
        if not state.history:
            return
        with stage("saving"):
            self._publish(state, metadata)

    def _publish(self, state: State, metadata: CheckpointMetadata) -> None:
        table = pd.DataFrame(state.history).to_csv(index=False, lineterminator="\n")
        write_text(self.history, table)
        if state.kept_buffer is not None:
            write_tensors(self.buffer, {"images": state.kept_buffer})
        if state.kept:
            save_checkpoint(self.checkpoint, state.kept, metadata)

    def load(self) -> State | None:
        """Read the state after the last whole epoch onto the CPU; None if none was saved.

        Raises:
            CembenchError: when it is damaged; only tensors and numbers are ever unpickled.
        """
        return _read(self.resume_state, "to train from the beginning")

    def load_midway(self, whole: State) -> State | None:
        """Read the state within the epoch that follows a whole one; None if none was saved.

        Raises:
            CembenchError: when it is damaged.
        """
        state = _read(self.midway_state, f"to go on after epoch {whole.epoch}")
        if state is None or (state.epoch, state.divergences) != (whole.epoch, whole.divergences):
            return None
        return state


def _read(path: Path, remedy: str) -> State | None:
    if not path.exists():
        return None
    try:
        with open_sealed(path) as file:
            return State(**torch.load(file, map_location="cpu", weights_only=True))
    except (CembenchError, pickle.UnpicklingError, RuntimeError, EOFError, TypeError) as error:
        raise CembenchError(f"{path}: damaged resume state; delete it {remedy}") from error


def _flat(values: dict[str, Any], place: str = "") -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, list) and any(isinstance(item, dict) for item in value):
            value = {str(number): item for number, item in enumerate(value)}
        inner = _flat(value, f"{place}{key}.") if isinstance(value, dict) else {place + key: value}
        result |= inner
    return result

"""Evaluator of the gate: how and where checkpoints are measured under a baseline's protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cembench.evaluation.gate.baseline import Baseline
from cembench.evaluation.protocol import Protocol
from cembench.evaluation.record import Record
from cembench.evaluation.record.files import load_table
from cembench.util.devices import pick_device
from cembench.util.errors import CembenchError, blaming
from cembench.util.files.layout import RunLayout
from cembench.util.files.names import file_name, require_distinct
from cembench.util.lazy import lazy_imports

with lazy_imports():
    import pandas as pd

    from cembench.evaluation.evaluate import evaluate


@dataclass(frozen=True)
class Evaluator:
    """How and where checkpoints are evaluated.

    Attributes:
        device: where to compute, as `pick_device` takes it.
        data_root: the folder of the data, if it is not the one of training.
        inception_weights: weights for the extractors inception and dinov2.
        out: where records go, in a folder of the row's name; beside the checkpoint unless given.
        on_record: called with path and record of each evaluation.
    """

    device: str = "cpu"
    data_root: str | None = None
    inception_weights: Path | None = None
    out: Path | None = None
    on_record: Callable[[Path, Record], object] | None = None

    def measure(
        self, name: str, file: Path, protocol: Protocol, keep: bool = False
    ) -> tuple[Record, pd.DataFrame]:
        """Return the record of a checkpoint and its table of verdicts, empty after an error.

        A valid record is reused, unless artifacts are to be saved.
        """
        record, place = evaluate(
            file,
            protocol,
            device=pick_device(self.device),
            data_root=self.data_root,
            inception_weights=self.inception_weights,
            folder=None if self.out is None else self.out / name,
            save_adversarial=keep,
            save_samples=keep and protocol.makes_images,
            reuse=not keep,
            on_record=self.on_record,
        )
        if record.kind == "encoder":
            raise CembenchError(f"{file}: an encoder has no verdicts to guard; check its probe")
        return record, pd.DataFrame() if record.error else load_table(place)


def named(checkpoints: Sequence[str], path: Path, baseline: Baseline | None) -> dict[str, Path]:
    """Return checkpoints by the name of their row; those of the baseline at `path` for none.

    Raises:
        CembenchError: when there are none, or two have the same name.
    """
    found: dict[str, Path] = {}
    for text in checkpoints:
        name, equals, rest = text.partition("=")
        file = Path(rest if equals else text)
        name = name if equals else RunLayout.at(file).name
        if name in found:
            raise CembenchError(f"two checkpoints are called '{name}'; give NAME=CHECKPOINT")
        with blaming(f"NAME=CHECKPOINT {text}"):
            found[file_name(name)] = file
    require_distinct([*(baseline.rows if baseline else ()), *found])
    if not checkpoints and baseline is not None:
        found = {name: path.parent / row.checkpoint for name, row in baseline.rows.items()}
    if not found:
        raise CembenchError(f"{path}: no rows to check; name checkpoints, with --update")
    return found

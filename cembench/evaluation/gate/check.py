"""Evaluation of checkpoints under the protocol of a baseline, to check or to update it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cembench.energy.threat import Threat, ThreatChange
from cembench.evaluation.compare import right_of
from cembench.evaluation.gate.baseline import (
    Baseline,
    load_baseline,
    load_verdicts,
    save_baseline,
    updated,
)
from cembench.evaluation.gate.gate import SANITY, Outcome, judge
from cembench.evaluation.protocol import Protocol
from cembench.evaluation.record import Record, load_table
from cembench.models.metadata import read_metadata
from cembench.util.devices import pick_device
from cembench.util.errors import CembenchError, blaming
from cembench.util.files.layout import RunLayout
from cembench.util.files.names import file_name, require_distinct
from cembench.util.lazy import lazy_imports
from cembench.util.settings import nearest

with lazy_imports():
    import pandas as pd

    from cembench.evaluation.evaluate import evaluate


@dataclass(frozen=True)
class Evaluator:
    """How and where checkpoints are evaluated.

    Attributes:
        device: where to compute, as `pick_device` takes it.
        data_root: the folder of the data, if it is not the one of training.
        inception_weights: weights for the extractor inception.
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
            save_samples=keep and protocol.samples is not None,
            reuse=not keep,
            on_record=self.on_record,
        )
        if record.kind == "encoder":
            raise CembenchError(f"{file}: an encoder has no verdicts to guard; check its probe")
        return record, pd.DataFrame() if record.error else load_table(place)


def check(checkpoints: Sequence[str], path: Path, evaluator: Evaluator) -> list[Outcome]:
    """Evaluate checkpoints under the protocol of a baseline and compare each figure with it.

    Args:
        checkpoints: `FILE`, `FOLDER` or `NAME=FILE`; all those of the baseline unless given. What
            they are compared with is the row of their name.
        path: the file of the baseline.
        evaluator: how and where.

    Raises:
        CembenchError: when a row or a checkpoint is missing or cannot be evaluated.
    """
    baseline = load_baseline(path)
    named = _named(checkpoints, path, baseline)
    for name in named:
        if name not in baseline.rows:
            hint = nearest(name, baseline.rows)
            raise CembenchError(f"{path}: no row '{name}'; {hint}; or give NAME=CHECKPOINT")
    found = {name: evaluator.measure(name, file, baseline.protocol) for name, file in named.items()}
    return judge(baseline, path, found)


def update(
    checkpoints: Sequence[str], path: Path, protocol: Protocol | None, evaluator: Evaluator
) -> Baseline:
    """Evaluate checkpoints as `check` does and write what they score into the baseline.

    Their artifacts are saved, so that `cembench verify` can check their records.

    Args:
        checkpoints: as in `check`.
        path: the file of the baseline.
        protocol: what a baseline that is not there yet begins with.
        evaluator: how and where.

    Raises:
        CembenchError: when the baseline is not there and no protocol is given, when it has another
            one, or when a checkpoint cannot be evaluated; the baseline stays as it was.
    """
    if path.exists() == (protocol is not None):
        remedy = "delete it first" if path.exists() else "begin it with --protocol"
        raise CembenchError(f"{path}: {'is' if path.exists() else 'not'} there; {remedy}")
    baseline = load_baseline(path) if protocol is None else None
    named = _named(checkpoints, path, baseline)
    if baseline is None:
        assert protocol is not None
        first = read_metadata(RunLayout.at(next(iter(named.values()))).checkpoint)
        baseline = Baseline(protocol=_settled(protocol, first.threat))
    for name, file in named.items():
        record, table = evaluator.measure(name, file, baseline.protocol, keep=True)
        if record.error is not None:
            raise CembenchError(f"{file}: cannot be a baseline: {record.error}")
        baseline = updated(baseline, path, name, RunLayout.at(file).checkpoint, record, table)
    save_baseline(path, baseline)
    return baseline


def _settled(protocol: Protocol, threat: Threat) -> Protocol:
    """Return a protocol that says its threat model, under a name that no other one has."""
    change = ThreatChange(**protocol.threat.over(threat).dump())
    settled = protocol.model_copy(update={"threat": change})
    return settled.model_copy(update={"name": f"baseline-{settled.digest[:6]}"})


def figures_of(path: Path) -> dict[str, list[str]]:
    """Return the figures that `check` compares, by row, without evaluating anything."""
    baseline = load_baseline(path)
    sanity = [] if baseline.protocol.sanity is None else [SANITY]
    return {
        name: [*right_of(load_verdicts(path, row)), *row.metrics, *sanity]
        for name, row in baseline.rows.items()
    }


def _named(checkpoints: Sequence[str], path: Path, baseline: Baseline | None) -> dict[str, Path]:
    """Return checkpoints by the name of their row; those of the baseline at `path` for none."""
    named: dict[str, Path] = {}
    for text in checkpoints:
        name, equals, rest = text.partition("=")
        file = Path(rest if equals else text)
        name = name if equals else RunLayout.at(file).name
        if name in named:
            raise CembenchError(f"two checkpoints are called '{name}'; give NAME=CHECKPOINT")
        with blaming(f"NAME=CHECKPOINT {text}"):
            named[file_name(name)] = file
    require_distinct([*(baseline.rows if baseline else ()), *named])
    if not checkpoints and baseline is not None:
        named = {name: path.parent / row.checkpoint for name, row in baseline.rows.items()}
    if not named:
        raise CembenchError(f"{path}: no rows to check; name checkpoints, with --update")
    return named

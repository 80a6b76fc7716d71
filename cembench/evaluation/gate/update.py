"""Update of a baseline: all rows are measured, then verdicts are written, then the file switched.

A kill or an error at any moment leaves the baseline with the verdicts that it names: verdict files
have names of their own content, and only the switch, one atomic replacement, makes them count.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from cembench.energy.threat import ThreatChange
from cembench.evaluation.gate.baseline import (
    Baseline,
    Row,
    gated_of,
    load_baseline,
    save_baseline,
    settled_name,
)
from cembench.evaluation.gate.conditions import require_protocol
from cembench.evaluation.gate.evaluator import Evaluator, named
from cembench.evaluation.gate.verdicts import clear_unnamed, verdicts_of, write_verdicts
from cembench.evaluation.protocol import Protocol
from cembench.evaluation.record import Record
from cembench.evaluation.section import GatedValue
from cembench.models.metadata import read_metadata
from cembench.util.errors import CembenchError
from cembench.util.files import sha256
from cembench.util.files.layout import RunLayout
from cembench.util.files.locks import locked
from cembench.util.lazy import lazy_imports

with lazy_imports():
    import pandas as pd

    from cembench.util.provenance import versions


def update(
    checkpoints: Sequence[str], path: Path, protocol: Protocol | None, evaluator: Evaluator
) -> Baseline:
    """Evaluate checkpoints as `check` does and write what they score into the baseline.

    Their artifacts are saved, so that `cembench verify` can check their records. Tolerances that
    are there already stay as they are.

    Args:
        checkpoints: as in `check`.
        path: the file of the baseline.
        protocol: what a baseline that is not there yet begins with.
        evaluator: how and where.

    Raises:
        CembenchError: when the baseline is not there and no protocol is given, when it has another
            one, when its protocol changed and not all rows are updated, when a checkpoint cannot
            be evaluated, or when another process updates it; the baseline stays as it was.
    """
    with locked(path.with_name(f".{path.name}.lock"), str(path)):
        if path.exists() == (protocol is not None):
            remedy = "delete it first" if path.exists() else "begin it with --protocol"
            raise CembenchError(f"{path}: {'is' if path.exists() else 'not'} there; {remedy}")
        before = load_baseline(path) if protocol is None else Baseline(protocol=protocol)
        files = named(checkpoints, path, before)
        _require_all_rows(path, before, files)
        try:
            baseline = _measured(_settled(before, files), path, files, evaluator)
            save_baseline(path, baseline)
        finally:
            clear_unnamed(path, before)
    return baseline


def _settled(baseline: Baseline, files: dict[str, Path]) -> Baseline:
    """Return a baseline whose protocol says its threat model, and has a name of its own."""
    protocol = baseline.protocol
    first = read_metadata(RunLayout.at(next(iter(files.values()))).checkpoint)
    change = ThreatChange(**protocol.threat.over(first.threat).dump())
    settled = protocol.model_copy(update={"threat": change})
    settled = settled.model_copy(update={"name": settled_name(settled)})
    return baseline.model_copy(update={"protocol": settled})


def _require_all_rows(path: Path, before: Baseline, names: Iterable[str]) -> None:
    """Require that rows measured under another protocol are all measured again."""
    remedy = "update all rows at once: name all checkpoints, or none"
    for name in sorted({*before.rows} - {*names}):
        require_protocol(path, before, name, remedy)


def _measured(
    baseline: Baseline, path: Path, files: dict[str, Path], evaluator: Evaluator
) -> Baseline:
    """Return the baseline with rows as they are now; verdicts are written once all are known."""
    found = {n: evaluator.measure(n, f, baseline.protocol, keep=True) for n, f in files.items()}
    for name, (record, _) in found.items():
        if record.error is not None:
            raise CembenchError(f"{files[name]}: cannot be a baseline: {record.error}")
    rows = dict(baseline.rows)
    for name, (record, table) in found.items():
        checkpoint = RunLayout.at(files[name]).checkpoint
        rows[name] = _row(baseline, path, name, checkpoint, record, table)
    return baseline.model_copy(update={"rows": rows})


def _row(
    baseline: Baseline, path: Path, name: str, checkpoint: Path, record: Record, table: pd.DataFrame
) -> Row:
    """Write the verdicts of a row and return the row."""
    protocol = baseline.protocol
    verdicts = verdicts_of(table, record.accuracies)
    file = write_verdicts(path, name, verdicts, protocol.deciding)
    return Row(
        checkpoint=_relative(checkpoint, path.parent),
        checkpoint_sha256=record.checkpoint_sha256,
        protocol_digest=protocol.digest,
        fingerprint=record.fingerprint,
        extractor=record.inputs.get("extractor", ""),
        software={key: str(record.environment[key]) for key in versions(protocol.libraries)},
        verdicts=f"{file.parent.name}/{file.name}",
        verdicts_sha256=sha256(file),
        not_applicable=record.not_applicable,
        sanity_failed=record.sanity_failed,
        sanity_passed=[check.name for check in record.sanity if check.verdict == "pass"],
        metrics=_metrics(baseline, name, record),
    )


def _metrics(baseline: Baseline, name: str, record: Record) -> dict[str, GatedValue]:
    """Return the other figures of a record, with the tolerances that the row has already."""
    old = baseline.rows[name].metrics if name in baseline.rows else {}
    return {
        key: old[key].model_copy(update={"value": metric.value}) if key in old else metric
        for key, metric in gated_of(record).items()
    }


def _relative(path: Path, folder: Path) -> str:
    """Return a path as seen from a folder."""
    return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()

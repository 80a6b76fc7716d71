"""Conditions of a measurement: protocol, images and software, and what changed since a row's."""

from __future__ import annotations

from pathlib import Path

from cembench.evaluation.diff import leaves
from cembench.evaluation.gate.baseline import Baseline, Row
from cembench.evaluation.gate.verdicts import protocol_of
from cembench.evaluation.protocol import Protocol
from cembench.evaluation.record import Record
from cembench.util.errors import CembenchError
from cembench.util.lazy import lazy_imports

with lazy_imports():
    import pandas as pd

    from cembench.util.provenance import versions

SHOWN = 5  # changed settings that a message names


def require_protocol(
    path: Path, baseline: Baseline, name: str, remedy: str = "measure all rows again with --update"
) -> None:
    """Require that a row was measured under the protocol that the baseline at `path` has now.

    Args:
        path: the file of the baseline.
        baseline: the baseline.
        name: of the row.
        remedy: what else than restoring the protocol would help.

    Raises:
        CembenchError: naming what changed.
    """
    row = baseline.rows[name]
    if not row.is_under(baseline.protocol):
        changes = changed_settings(path, row, baseline.protocol)
        raise CembenchError(
            f"{path}: the protocol changed since row '{name}' was measured{changes}; restore it, "
            f"or {remedy}"
        )


def changed_settings(path: Path, row: Row, protocol: Protocol) -> str:
    """Name the settings that changed since a row was measured, as far as is known."""
    before = protocol_of(path, row)
    if before is None:
        return ""
    old, new = leaves(before), leaves(protocol.deciding)
    changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    told = [f"{key}: {old.get(key)} → {new.get(key)}" for key in changed[:SHOWN]]
    more = [f"{len(changed) - SHOWN} more"] if len(changed) > SHOWN else []
    return f" ({', '.join([*told, *more])})" if changed else ""


def changed_software(row: Row) -> str:
    """Return the versions that changed since a row was measured; empty for none."""
    now = versions(row.software)
    changed = {key: old for key, old in row.software.items() if now.get(key, old) != old}
    return ", ".join(f"{key} {old} → {now[key]}" for key, old in changed.items())


def require_software(path: Path, baseline: Baseline, name: str) -> None:
    """Require that a row was measured with the versions that are installed.

    Raises:
        CembenchError: naming those that changed.
    """
    if changed := changed_software(baseline.rows[name]):
        raise CembenchError(
            f"{path}: row '{name}' was measured with other software ({changed}); compare anyway "
            "with --allow-changed-software, or measure it again with --update"
        )


def require_same_images(
    name: str, row: Row, before: pd.DataFrame, record: Record, table: pd.DataFrame
) -> None:
    """Require that a record is of the images of a row, with the labels of its verdicts.

    Raises:
        CembenchError: when it is not, or has no figures.
    """
    if record.error is not None:
        raise CembenchError(f"{name}: could not be evaluated: {record.error}")
    same = list(before["index"]) == list(table["index"])
    problems = {
        "the attacked images are not those of the baseline": record.fingerprint != row.fingerprint,
        "the verdicts of the baseline are about other images": not same,
        "the labels of the baseline's verdicts are not those of the images": same
        and list(before["label"]) != list(table["label"]),
        "the features of samples are taken with other weights than in the baseline": row.extractor
        not in ("", record.inputs.get("extractor")),
    }
    for problem, found in problems.items():
        if found:
            raise CembenchError(f"{name}: {problem}; restore them, or --update the row")

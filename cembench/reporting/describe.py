"""Pages of text about a run and about a record, for a terminal."""

from __future__ import annotations

import glob
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cembench.data import DataSettings
from cembench.evaluation.record import Record
from cembench.evaluation.record.display import rates
from cembench.evaluation.record.files import load_beside
from cembench.evaluation.sections import SANITY
from cembench.models.metadata import CheckpointMetadata
from cembench.reporting.details import settings, tables
from cembench.reporting.history import read_history
from cembench.util.display.charts import Cell, Table
from cembench.util.display.format import missing, number, percent
from cembench.util.display.text_table import text_table
from cembench.util.errors import CembenchError
from cembench.util.files.fetched import told
from cembench.util.files.layout import RunLayout
from cembench.util.files.names import shown
from cembench.util.files.yaml import to_yaml

WIDTH = 88  # of what is wrapped
UNCHECKED = "unchecked: nothing looked for gradient masking; it needs `sanity` and enough images"
OMITTED = ("name", "description")


def record_page(record: Record) -> str:
    """Return what a record says: accuracies, samples, checks, warnings, protocol."""
    protocol = record.protocol
    facts = {
        "run": f"{record.run}: {record.model} of {record.dataset}, method {record.method}",
        "training": _training(record.epoch, record.finished, record.seed, record.divergences),
        "protocol": f"{protocol.get('name')}, {record.split} images, threat model {record.threat}",
        "evaluated": f"{record.created}, {record.seconds:,.0f} s, {_versions(record)}",
        "checkpoint": record.checkpoint_sha256,
        "error": record.error or "",
    }
    parts = [_aligned(facts)]
    for key, found in tables(record).items():
        parts += [_checks(record)] if key == SANITY.key else map(_table, found)
    asked = {key: value for key, value in protocol.items() if key not in OMITTED}
    parts += [_list("Warnings", record.warnings), f"Protocol\n{to_yaml(_without_null(asked))}"]
    return "\n\n".join(part.rstrip() for part in parts if part) + "\n"


def run_page(layout: RunLayout, metadata: CheckpointMetadata) -> str:
    """Return what a checkpoint is, how its training went, and what its records say."""
    shape, of = "×".join(map(str, metadata.shape)), len(metadata.classes)
    facts = {
        "run": f"{layout.name}, {metadata.kind}",
        "method": f"{metadata.method}{_given(metadata.config.get('method'))}",
        "model": f"{metadata.model.title}{_given(metadata.model.dump())}",
        "data": f"{metadata.data.title}, {shape} pixels, {of} classes",
        "extra data": ", ".join(member.title for member in metadata.data.members[1:]),
        "labels of": ", ".join(filter(None, map(_labelled, metadata.data.members))),
        "images in": ", ".join(
            str(member.image_folder) for member in metadata.data.members if member.image_folder
        ),
        "threat model": str(metadata.threat),
        "training": _training(
            metadata.epoch, metadata.finished, metadata.seed, metadata.divergences, metadata.config
        ),
        "validation": _validation(layout.history, metadata),
        "origin": metadata.origin,
        "written by": f"cembench {metadata.version}",
    }
    return "\n\n".join(filter(None, [_aligned(facts), _records(layout)])) + "\n"


def runs_page(runs: Mapping[Path, CheckpointMetadata]) -> str:
    """Return a line for each run: what it is, and the accuracies of its latest record."""
    head = ["run", "method", "model", "data", "threat model", "epoch", "records", "latest"]
    return "\n".join(text_table(head, [_run(*item) for item in runs.items()])) + "\n"


def _run(path: Path, found: CheckpointMetadata) -> list[str]:
    files = RunLayout(path).records()
    latest = max(files, key=lambda file: file.stat().st_mtime, default=None)
    try:
        last = "" if latest is None else f"{latest.stem}: {rates(load_beside(latest))}"
    except CembenchError as error:
        last = str(error)
    epoch = f"{found.epoch}" + ("" if found.finished else ", unfinished")
    names = [str(path), found.method, found.model.title, found.data.title, str(found.threat)]
    return [*names, epoch, str(len(files)), last]


def _labelled(data: DataSettings) -> str:
    """Return what gave labels to a data set that has none of its own."""
    source = getattr(data, "pseudo_labels", None)
    return "" if source is None else f"{data.title} from {source.title}"


def _training(
    epoch: int, finished: bool, seed: int, divergences: int, config: Mapping[str, Any] | None = None
) -> str:
    whole = (config or {}).get("epochs")
    parts = [f"epoch {epoch}" + (f" of {whole}" if whole else ""), f"seed {seed}"]
    parts += ["unfinished"] * (not finished)
    return ", ".join(parts + [f"{divergences} rollbacks after divergence"] * bool(divergences))


def _versions(record: Record) -> str:
    known = record.environment
    return f"cembench {known.get('cembench')}, {known.get('device', 'unknown device')}"


def _without_null(values: Any) -> Any:
    """Return plain values without the keys that hold nothing."""
    if isinstance(values, dict):
        known = {key: _without_null(value) for key, value in values.items()}
        return {key: value for key, value in known.items() if value not in (None, {}, [])}
    return [_without_null(value) for value in values] if isinstance(values, list) else values


def _given(values: Any) -> str:
    """Return settings in parentheses; inner ones, such as those of a sampler, in theirs."""
    if not isinstance(values, dict):
        return ""
    inner = {
        key: f"{value.get('name', '')}{_given(value)}" if isinstance(value, dict) else value
        for key, value in values.items()
    }
    told = settings(inner)
    return f" ({told})" if told else ""


def _validation(file: Path, metadata: CheckpointMetadata) -> str:
    """Return what training measured on held-out images after the kept epoch."""
    if not file.exists():
        return ""
    try:
        history = read_history(file, metadata)
    except CembenchError as error:
        return str(error)
    if metadata.epoch not in history["epoch"]:
        return ""
    kept = history["epoch"].index(metadata.epoch)
    values = {key[4:]: column[kept] for key, column in history.items() if key[:4] == "val_"}
    known = {key: value for key, value in values.items() if not missing(value)}
    return ", ".join(f"{key} {_figure(key, value)}" for key, value in known.items())


def _figure(key: str, value: float) -> str:
    return percent(value) if key.endswith("acc") else number(value)


def _records(layout: RunLayout) -> str:
    """Return one line per record of the checkpoint."""
    lines = []
    for path in layout.records(f"{glob.escape(layout.own_name)}.*" if layout.own_name else "*"):
        try:
            record = load_beside(path)
        except CembenchError as error:
            lines.append(str(error))
            continue
        failed = f"; failed checks: {', '.join(record.sanity_failed)}" * bool(record.sanity_failed)
        failed += "; ⚠ of another checkpoint than the one here" * record.replaced
        failed += "; unchecked" * record.unchecked
        lines.append(f"{told(path)}: {record.error or rates(record) or 'samples alone'}{failed}")
    return _list("Records", lines)


def _checks(record: Record) -> str:
    """Return the verdicts of the sanity checks, and the meaning of those that failed."""
    checks = SANITY.of(record)
    if not checks and not record.unchecked:
        return ""
    rows = [
        ["⚠" if check.verdict == "fail" else "", check.name, check.verdict, number(check.figure)]
        for check in checks
    ]
    failed = [f"{one.name}: {one.meaning}" for one in checks if one.verdict == "fail"]
    failed += [UNCHECKED] if record.unchecked else []
    lines = text_table(["", "check", "verdict", "value"], rows) if rows else []
    return "\n".join(["Sanity checks", *lines, *map(_wrapped, failed)])


def _table(table: Table) -> str:
    rows = [[_text(cell) for cell in row] for row in table.rows]
    return "\n".join([shown(table.title), *text_table(table.head, rows, WIDTH // 2)])


def _text(cell: Cell) -> str:
    if not cell.note:
        return cell.text
    return f"{cell.text} {cell.note}" if cell.note.startswith("±") else f"{cell.text} ({cell.note})"


def _aligned(facts: Mapping[str, str]) -> str:
    known = {key: value for key, value in facts.items() if value}
    width = max(map(len, known)) + 2
    return "\n".join(f"{key:<{width}}{shown(value)}" for key, value in known.items())


def _list(title: str, lines: Iterable[str] | Sequence[str]) -> str:
    listed = [_wrapped(line) for line in lines]
    return "\n".join([title, *listed]) if listed else ""


def _wrapped(line: str) -> str:
    return textwrap.fill(line, WIDTH, initial_indent="- ", subsequent_indent="  ")

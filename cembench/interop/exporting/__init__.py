"""Checkpoints in the forms that other tools read."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Literal

from cembench.models.source import ModelSource
from cembench.util.errors import CembenchError
from cembench.util.settings import nearest

Form = Literal["robustbench", "huggingface", "onnx"]
FORMS: tuple[Form, ...] = ("robustbench", "huggingface", "onnx")


def export(
    checkpoint: str | Path,
    to: Form,
    out: str | Path | None = None,
    *,
    record: str | Path | None = None,
    fields: Mapping[str, object] | None = None,
) -> Path:
    """Write a checkpoint in the form of another tool, and return what was written.

    Args:
        checkpoint: a file, or a run folder.
        to: `robustbench`, the JSON file of its `model_info`; `huggingface`, a folder to upload with
            weights, config, model card and a grid of samples; `onnx`, images in [0, 1], N×C×H×W
            with any N, to outputs.
        out: the file or folder; `export/RUN…` unless given.
        record: what figures come from, where the form has any: the one beside the checkpoint with
            most images under AutoAttack unless given.
        fields: what only its author knows: `name`, `authors`, `link`, `venue`, `licence`, ….

    Raises:
        CembenchError: when there is no such record, a field is unknown, a package is missing, or
            the result is not what the network says.
    """
    if to not in FORMS:
        raise CembenchError(f"--to {to}: {nearest(to, FORMS)}")
    source = ModelSource.at(Path(checkpoint))
    place = Path("export") / source.name if out is None else Path(out)
    write = import_module(f"cembench.interop.exporting.{to}").write
    written: Path = write(source, place, record and Path(record), dict(fields or {}))
    return written


def chosen(fields: Mapping[str, object], defaults: Mapping[str, object]) -> dict[str, object]:
    """Return defaults with fields in their place.

    Raises:
        CembenchError: for a field that is not among them.
    """
    for key in fields:
        if key not in defaults:
            raise CembenchError(f"--set {key}: no such field; {nearest(key, defaults)}")
    return {**defaults, **fields}

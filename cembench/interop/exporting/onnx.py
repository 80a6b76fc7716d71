"""ONNX file for batches of any size, checked against the network in onnxruntime."""

from __future__ import annotations

import io
import warnings
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cembench.interop.exporting import merge_fields
from cembench.models.source import ModelSource
from cembench.util.errors import CembenchError
from cembench.util.files import write_bytes
from cembench.util.files.names import file_name
from cembench.util.frozen import exact, frozen
from cembench.util.rng import generator_of

BATCHES = (1, 7)
TOLERANCE = 1e-4


def write(source: ModelSource, out: Path, record: Path | None, fields: dict[str, object]) -> Path:
    """Write the file; it holds no results.

    Raises:
        CembenchError: when a package is missing, the network cannot be exported, or onnxruntime
            computes logits that differ by more than 1e-4 of the largest one.
    """
    merge_fields(fields, {})
    if record is not None:
        raise CembenchError("--record: an ONNX file holds no figures; leave it out")
    _require_packages()
    model = source.load(torch.device("cpu"))
    metadata = source.metadata
    output = "embeddings" if metadata.kind == "encoder" else "logits"
    with frozen(model), exact():
        proto = _converted(model, source, output)
        for key, value in {
            "classes": "\n".join(metadata.classes),
            "pixels": "float32 in [0, 1], N×C×H×W",
            "checkpoint_sha256": source.checksum,
        }.items():
            proto.metadata_props.add(key=key, value=value)
        content = proto.SerializeToString()
        for count in BATCHES:
            _require_same(model, content, (count, *metadata.shape), source)
    path = out if out.suffix == ".onnx" else out / f"{file_name(source.name)}.onnx"
    write_bytes(path, content)
    return path


def _require_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise CembenchError(f"ONNX needs more: pip install 'cembench[onnx]' ({error})") from error


def _converted(model: nn.Module, source: ModelSource, output: str) -> Any:
    """Return the protocol buffer; the exporter's prints stay off stdout."""
    example = _images((2, *source.metadata.shape))
    try:
        with redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                model,
                (example,),
                input_names=["images"],
                output_names=[output],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                dynamo=True,
                verbose=False,
            )
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CembenchError(f"{source.file}: torch cannot export it to ONNX: {reason}") from error
    assert program is not None
    return program.model_proto


def _require_same(model: nn.Module, content: bytes, size: tuple[int, ...], of: ModelSource) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    images = _images(size)
    (theirs,) = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        ours = model(images)
    gap = float((torch.from_numpy(theirs) - ours).abs().max())
    if not gap <= TOLERANCE * max(1.0, float(ours.abs().max())):
        raise CembenchError(
            f"{of.file}: onnxruntime's answers differ by {gap:.2g} in a batch of {size[0]}"
        )


def _images(size: tuple[int, ...]) -> Tensor:
    return torch.rand(size, generator=generator_of(0, "cpu"))

"""Artifacts beside a record, so that others can verify it: adversarial images and samples."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from torch import Tensor

from cembench.data.split import Split
from cembench.energy.ascent import to_bytes
from cembench.energy.norms import Ball
from cembench.evaluation.cache import ChunkCache, attack_key
from cembench.evaluation.protocol import Protocol
from cembench.samplers.draw import Samples
from cembench.util.errors import CembenchError
from cembench.util.files.layout import RunLayout
from cembench.util.files.names import file_name
from cembench.util.files.tensors import read_tensors, write_tensors

SEALED: dict[str, str] = {}  # metadata, by which a reader knows that a file must have a seal
Size = tuple[int, int, int]


def save_adversarial(
    cache: ChunkCache, protocol: Protocol, split: Split, ball: Ball, record: Path
) -> None:
    """Save the adversarial images: `rows`, `images` (float32) and `bytes` (uint8), a file each.

    The bytes are the images rounded inside the ball around the rounded clean image, so they
    survive an 8-bit file; the floats are what the main figure counts.
    """
    for attack in protocol.attacks:
        none = torch.zeros(0, *split.shape)
        found = {"rows": [torch.zeros(0).long()], "images": [none], "bytes": [none.byte()]}
        for start in range(0, len(split), protocol.batch_size):
            kept = cache.tensors(attack_key(attack.title, start))
            if kept is None:
                continue
            broken = kept["broken"]
            images, clean = kept["images"][broken], split.pixels(slice(start, start + len(broken)))
            rounded = to_bytes(images, clean.cpu()[broken], ball)
            found["rows"].append(kept["rows"][broken])
            found["images"].append(images)
            found["bytes"].append((rounded * 255).round().to(torch.uint8))
        values = {key: torch.cat(value) for key, value in found.items()}
        write_tensors(_adversarial_file(record, attack.title), values, SEALED)


def save_samples(cache: ChunkCache, record: Path) -> None:
    """Save the chunks of samples in the cache, a file each, in place of those that are there."""
    folder = RunLayout.samples(record)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)  # also where every sampler failed
    for name in cache.names("samples"):
        values = cache.tensors(name)
        assert values is not None
        write_tensors(folder / f"{name.removeprefix('samples.')}.safetensors", values, SEALED)


def require_artifacts(record: Path, protocol: Protocol) -> None:
    """Refuse a record whose figures nobody can compute again.

    Raises:
        CembenchError: naming the options that keep what is missing.
    """
    wanted = {
        "--save-adversarial": bool(protocol.attacks) and RunLayout.adversarial(record),
        "--save-samples": protocol.samples is not None and RunLayout.samples(record),
    }
    missing = [option for option, folder in wanted.items() if folder and not folder.is_dir()]
    if missing:
        options = " ".join(missing)
        raise CembenchError(f"{record}: its artifacts were not saved; evaluate with {options}")


def saved_images(record: Path, attack: str, rows: Tensor, shape: Size) -> tuple[Tensor, Tensor]:
    """Return what `save_adversarial` kept of an attack: places in `rows`, and images in float32.

    Args:
        record: the file of the record.
        attack: its title.
        rows: the numbers of the attacked images.
        shape: channels, height and width of one.

    Raises:
        CembenchError: when it is missing, damaged or about other images.
    """
    path = _adversarial_file(record, attack)
    kept = _read(path, "--save-adversarial")
    place = {int(row): number for number, row in enumerate(rows)}
    try:
        places = torch.tensor([place[int(row)] for row in kept["rows"]], dtype=torch.long)
        return places, kept["images"].reshape(len(places), *shape)
    except (KeyError, RuntimeError) as error:
        raise CembenchError(f"{path}: not of these images, or damaged") from error


def saved_samples(record: Path, sampler: str, number: int, y: Tensor) -> Samples:
    """Return a chunk of the samples of a sampler as it was kept, images and starts as bytes.

    Args:
        record: the file of the record.
        sampler: its title.
        number: that of the chunk.
        y: its classes. They are not read, so that none can be chosen afterwards.

    Raises:
        CembenchError: when the chunk is missing or damaged.
    """
    path = RunLayout.samples(record) / f"{sampler}.{number}.safetensors"
    values = _read(path, "--save-samples") | {"labels": y}
    if set(values) != set(Samples.__annotations__) or {*map(len, values.values())} != {len(y)}:
        raise CembenchError(f"{path}: not {len(y)} samples; evaluate with --save-samples")
    return Samples(**values)


def _adversarial_file(record: Path, attack: str) -> Path:
    return RunLayout.adversarial(record) / f"{file_name(attack)}.safetensors"


def _read(path: Path, option: str) -> dict[str, Tensor]:
    try:
        return read_tensors(path, legacy=True)
    except CembenchError as error:
        raise CembenchError(f"{path}: missing or damaged; evaluate with {option}") from error

"""Artifacts beside a record, so that others can verify it: adversarial images and samples."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cembench.data.split import Split
from cembench.energy.ascent import to_bytes
from cembench.energy.threat import Threat
from cembench.evaluation.cache import ChunkCache, attack_key
from cembench.evaluation.protocol import Protocol
from cembench.samplers.draw import Samples
from cembench.util.errors import CembenchError
from cembench.util.files.layout import RunLayout
from cembench.util.files.names import file_name
from cembench.util.files.tensors import Parts, open_tensors, read_tensors, write_tensors

SEALED: dict[str, str] = {}  # metadata, by which a reader knows that a file must have a seal
OUTSIDE = "outside_"  # before the keys of images that lie outside the ball
Size = tuple[int, int, int]


def save_adversarial(
    cache: ChunkCache, protocol: Protocol, split: Split, threat: Threat, record: Path
) -> None:
    """Save the adversarial images: `rows`, `images` (float32) and `bytes` (uint8), a file each.

    The bytes are the images rounded inside the ball around the rounded clean image, so they
    survive an 8-bit file; the floats are what the main figure counts. Images that fool the network
    outside the ball alone are `outside_rows` and `outside_images`, where there are any. `threat` is
    the threat model of the record.
    """
    for run in protocol.runs:
        ball = (run.threat or threat).ball
        won, outside = (
            _Found(cache, run.title, protocol.batch_size, split, kind)
            for kind in ("broken", "outside")
        )
        rounded = (to_bytes(images, clean, ball) for _, images, clean in won)
        shape = len(won.rows), *split.shape
        values: dict[str, Tensor | Parts] = won.values() | {
            "bytes": Parts("uint8", shape, ((x * 255).round().to(torch.uint8) for x in rounded))
        }
        if len(outside.rows):
            values |= outside.values(OUTSIDE)
        write_tensors(adversarial_file(record, run.title), values, SEALED)


@dataclass(frozen=True)
class _Found:
    """Images that an attack found, chunk by chunk: rows, adversarial and clean ones.

    They are those of a `kind`: `broken`, on which it succeeds, or `outside`.
    """

    cache: ChunkCache
    attack: str
    size: int
    split: Split
    kind: str

    @cached_property
    def rows(self) -> Tensor:
        return torch.cat([torch.zeros(0).long(), *(rows for rows, _, _ in self)])

    def values(self, prefix: str = "") -> dict[str, Tensor | Parts]:
        images = Parts("float32", (len(self.rows), *self.split.shape), (x for _, x, _ in self))
        return {f"{prefix}rows": self.rows, f"{prefix}images": images}

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for start in range(0, len(self.split), self.size):
            kept = self.cache.tensors(attack_key(self.attack, start))
            if kept is not None:
                own = kept[self.kind]
                clean = self.split.pixels(slice(start, start + len(own))).cpu()
                yield kept["rows"][own], kept["images"][own], clean[own]


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
        "--save-samples": protocol.makes_images and RunLayout.samples(record),
    }
    missing = [option for option, folder in wanted.items() if folder and not folder.is_dir()]
    if missing:
        options = " ".join(missing)
        raise CembenchError(f"{record}: its artifacts were not saved; evaluate with {options}")


class SavedImages:
    """Adversarial images that `save_adversarial` kept of an attack, in float32, read in parts.

    Args:
        record: the file of the record.
        attack: its title.
        rows: the numbers of the attacked images.
        shape: channels, height and width of one.

    Raises:
        CembenchError: when it is missing, damaged or about other images.
    """

    def __init__(self, record: Path, attack: str, rows: Tensor, shape: Size) -> None:
        self.path, self.shape = adversarial_file(record, attack), shape
        place = {int(row): number for number, row in enumerate(rows)}
        with _opened(self.path, "--save-adversarial") as kept:
            prefixes = ["", *[OUTSIDE] * (f"{OUTSIDE}rows" in set(kept.keys()))]
            self.places = {prefix: self._places(kept, prefix, place) for prefix in prefixes}

    def _places(self, kept: Any, prefix: str, place: dict[int, int]) -> Tensor:
        try:
            places = [place[int(row)] for row in kept.get_tensor(f"{prefix}rows")]
            values = prod(kept.get_slice(f"{prefix}images").get_shape())
        except (KeyError, SafetensorError):
            places, values = [], -1
        if values != len(places) * prod(self.shape):
            raise CembenchError(f"{self.path}: not of these images, or damaged")
        return torch.tensor(places, dtype=torch.long)

    def between(self, start: int, stop: int, outside: bool = True) -> tuple[Tensor, Tensor]:
        """Return the places in `rows` from `start` on and below `stop`, and the images, N×C×H×W.

        Those in the ball come first, then those that fool the network `outside` it, if wanted.
        """
        prefixes = [prefix for prefix in self.places if outside or not prefix]
        parts = [self._between(prefix, start, stop) for prefix in prefixes]
        places, images = zip(*parts, strict=True)
        return torch.cat(places), torch.cat(images)

    def _between(self, prefix: str, start: int, stop: int) -> tuple[Tensor, Tensor]:
        places = self.places[prefix]
        own = ((places >= start) & (places < stop)).nonzero().squeeze(1)
        if len(own) == 0:
            return own, torch.zeros(0, *self.shape)
        first = int(own.min())
        with safe_open(self.path, "pt") as kept:
            images = kept.get_slice(f"{prefix}images")[first : int(own.max()) + 1][own - first]
        return places[own], images.reshape(len(own), *self.shape)


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
    path = _sample_file(record, sampler, number)
    values = _read(path, "--save-samples") | {"labels": y}
    if set(values) != set(Samples.__annotations__) or {*map(len, values.values())} != {len(y)}:
        raise CembenchError(f"{path}: not {len(y)} samples; evaluate with --save-samples")
    return Samples(**values)


def saved_images(record: Path, title: str, number: int) -> Tensor:
    """Return a chunk of images in float32, such as counterfactuals, as `save_samples` kept it.

    Raises:
        CembenchError: when it is missing or damaged.
    """
    path = _sample_file(record, title, number)
    values = _read(path, "--save-samples")
    if set(values) != {"images"} or values["images"].dtype != torch.float32:
        raise CembenchError(f"{path}: not a chunk of images; evaluate with --save-samples")
    return values["images"]


def _sample_file(record: Path, title: str, number: int) -> Path:
    return RunLayout.samples(record) / f"{title}.{number}.safetensors"


def adversarial_file(record: Path, attack: str) -> Path:
    """Return the file of the adversarial images of an attack, by its title."""
    return RunLayout.adversarial(record) / f"{file_name(attack)}.safetensors"


@contextmanager
def _opened(path: Path, option: str) -> Iterator[Any]:
    with ExitStack() as stack:
        try:
            kept = stack.enter_context(open_tensors(path, legacy=True))
        except CembenchError as error:
            raise CembenchError(f"{path}: missing or damaged; evaluate with {option}") from error
        yield kept


def _read(path: Path, option: str) -> dict[str, Tensor]:
    try:
        return read_tensors(path, legacy=True)
    except CembenchError as error:
        raise CembenchError(f"{path}: missing or damaged; evaluate with {option}") from error

"""Checkpoints spoilt at random, which are read or refused in one line that names the file."""

from __future__ import annotations

import json
import random
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from cembench.cli import main
from cembench.models.checkpoint import load_checkpoint
from cembench.util.errors import CembenchError
from cembench.util.files.seal import UNSEALED, seal

SOURCE = Path(__file__).parents[1] / "fixtures" / "format-4" / "at" / "model.safetensors"
TEXTS = ["", "\ud800", "\x1b[2J", "a\0b", "../..", "~nobody/x", "8/255", "x" * 5000, "ε", "at"]
NUMBERS = [-1, 0, 1, 3, 0.5, 1.0, -0.0, 1e300, 1e-300, 2**31, 2**63, 10**400]
NUMBERS += [float("nan"), float("inf")]
CHOICES: list[dict[str, Any]] = [
    {"name": "wide_resnet", "depth": 994, "width": 100},
    {"name": "small_cnn", "width": 1024},
    {"name": "torchvision", "arch": "vit_l_16"},
    {"name": "torchvision", "arch": "regnet_y_16gf"},
    {"name": "factory", "target": "os:system", "args": {"command": "exit 3"}},
    {"name": "folder", "root": "/nowhere"},
    {"name": "parquet", "root": "~nobody/x", "alias": "x"},
    {"name": "projection", "hidden": 65536, "dimension": 65536},
    {"name": "knn"},
    {"norm": "l2", "eps": 9000},
    {"fraction": 1.5},
]


def fuzz_checkpoints(count: int, seed: int, folder: Path) -> Counter[str]:
    """Read spoilt checkpoints, by `show` and by `load_checkpoint`; count kinds and outcomes.

    Raises:
        AssertionError: naming the file that was neither read nor refused as it should be, which
            stays in the folder, and what was done to it.
    """
    outcomes: Counter[str] = Counter()
    for number in range(count):
        draw = random.Random(f"{seed} {number}")
        kind = draw.choice([*KINDS, "metadata", "metadata", "key"])
        path = folder / f"{seed}-{number}.safetensors"
        path.write_bytes(KINDS[kind](draw, SOURCE.read_bytes()))
        try:
            read = _shown(path, draw.random() < 0.3) and _loaded(path)
        except BaseException as error:
            raise AssertionError(f"{path} ({kind}): {error!r}") from error
        outcomes[f"{kind} {'read' if read else 'refused'}"] += 1
        path.unlink()
    return outcomes


def _shown(path: Path, as_json: bool) -> bool:
    """Return whether `show` reads a file, after checking how it refuses it otherwise."""
    result = CliRunner().invoke(main, ["show", str(path), *["--json"] * as_json])
    if result.exit_code == 0:
        return True
    assert result.exit_code == 2, result.exception
    assert len(result.stderr.splitlines()) == 1 and "unexpected" not in result.stderr, result.stderr
    assert str(path) in result.stderr and len(result.stderr) < 10_000, result.stderr
    return False


def _loaded(path: Path) -> bool:
    try:
        load_checkpoint(path)
        return True
    except CembenchError as error:
        assert str(path) in str(error) and len(str(error)) < 10_000
        return False


def _parts(content: bytes) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """Return the header of a checkpoint, its metadata, and the values of its tensors."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    metadata = json.loads(header.pop("__metadata__")["cembench"])
    del metadata["seal"]
    return header, metadata, content[8 + length :]


def _whole(header: dict[str, Any], metadata: Any, values: bytes) -> bytes:
    """Return a checkpoint with a seal, so that what it says is looked at."""
    if isinstance(metadata, dict):
        metadata = {**metadata, "seal": UNSEALED}
    entries = {"cembench": json.dumps(metadata)}
    if not isinstance(metadata, dict):
        entries["seal"] = UNSEALED
    text = json.dumps({"__metadata__": entries, **header}).encode()
    return seal(struct.pack("<Q", len(text)) + text + values)


def _spoilt(draw: random.Random, value: Any) -> Any:
    """Return plain values with one of them changed, deleted, added or nested."""
    if isinstance(value, dict | list) and value and draw.random() < 0.8:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key, copy = draw.choice(keys), value.copy()
        act = draw.random()
        if act < 0.1:
            del copy[key]
        elif act < 0.2 and isinstance(copy, dict):
            copy[draw.choice(TEXTS)] = _junk(draw)
        else:
            copy[key] = _spoilt(draw, value[key])
        return copy
    return [value] if draw.random() < 0.1 else _junk(draw)


def _junk(draw: random.Random) -> Any:
    nested: Any = draw.choice(TEXTS)
    for _ in range(draw.choice([1, 20, 300])):
        nested = {"a": nested} if draw.random() < 0.5 else [nested]
    plain = [None, True, {}, [], [0] * 1000]
    return draw.choice(draw.choice([TEXTS, NUMBERS, CHOICES, [nested], plain]))


def _metadata(draw: random.Random, content: bytes) -> bytes:
    header, metadata, values = _parts(content)
    for _ in range(draw.choice([1, 1, 2])):
        metadata = _spoilt(draw, metadata)
    return _whole(header, metadata, values)


def _key(draw: random.Random, content: bytes) -> bytes:
    """Put one whole setting in the place of another key's."""
    header, metadata, values = _parts(content)
    metadata[draw.choice(list(metadata))] = _junk(draw)
    return _whole(header, metadata, values)


def _tensors(draw: random.Random, content: bytes) -> bytes:
    """Spoil what the header says of the tensors."""
    header, metadata, values = _parts(content)
    name = draw.choice(list(header))
    if draw.random() < 0.3:
        header[draw.choice(TEXTS)] = header.pop(name)
    elif draw.random() < 0.5:
        header[name]["shape"] = [*header[name]["shape"][::-1], 1]
    else:
        header[name] = _spoilt(draw, header[name])
    return _whole(header, metadata, values)


def _flipped(draw: random.Random, content: bytes) -> bytes:
    flipped = bytearray(content)
    for _ in range(draw.choice([1, 1, 8])):
        flipped[draw.randrange(len(flipped))] ^= 1 << draw.randrange(8)
    return bytes(flipped)


def _flipped_header(draw: random.Random, content: bytes) -> bytes:
    """Flip a bit of the header, and seal what came of it."""
    length = int.from_bytes(content[:8], "little")
    return _resealed(_flipped(draw, content[: 8 + length]) + content[8 + length :])


def _resealed(content: bytes) -> bytes:
    place = content.find(b"sha256:")
    if place < 0:
        return content
    return seal(content[:place] + UNSEALED.encode() + content[place + len(UNSEALED) :])


def _cut(draw: random.Random, content: bytes) -> bytes:
    cut = content[: draw.randrange(len(content))]
    return draw.choice([cut, content + cut, _resealed(cut)])


def _length(draw: random.Random, content: bytes) -> bytes:
    right = int.from_bytes(content[:8], "little")
    lies = [0, 1, right - 1, right + 1, len(content), 10**8, 2**31, 2**63, 2**64 - 1]
    return _resealed(struct.pack("<Q", draw.choice(lies)) + content[8:])


KINDS: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "metadata": _metadata,
    "key": _key,
    "tensors": _tensors,
    "flipped": _flipped,
    "flipped header": _flipped_header,
    "cut": _cut,
    "length": _length,
}

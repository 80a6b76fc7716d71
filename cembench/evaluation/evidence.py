"""Adversarial images kept beside a record, and a recount of every figure from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from cembench.ascent import Ball, ball_of, to_bytes
from cembench.checkpoint import Passport, checkpoint_file, load_checkpoint
from cembench.data.split import Split, subset
from cembench.errors import CembenchError
from cembench.evaluation.figures import Figure, count
from cembench.evaluation.parts import Parts
from cembench.evaluation.protocol import Protocol
from cembench.evaluation.record import Record, load_record, load_table
from cembench.evaluation.verify import Watched, verify
from cembench.files import sha256, write_bytes
from cembench.guard import exact, frozen


def evidence_folder(record: Path) -> Path:
    """Return where the adversarial images of a record lie."""
    return record.with_suffix(".adversarial")


def save_evidence(parts: Parts, protocol: Protocol, split: Split, ball: Ball, record: Path) -> None:
    """Keep what broke each image: `rows`, `images` (float32) and `bytes` (uint8), an attack a file.

    The bytes are the images rounded inside the ball around the rounded clean image, so they
    survive an 8-bit file; the floats are what the main figure counts.
    """
    for attack in protocol.attacks:
        none = torch.zeros(0, *split.shape)
        found = {"rows": [torch.zeros(0).long()], "images": [none], "bytes": [none.byte()]}
        for start in range(0, len(split), protocol.batch_size):
            kept = parts.tensors(f"adversarial.{attack.title}.{start}")
            if kept is None:
                continue
            broken = kept["broken"]
            images, clean = kept["images"][broken], split.pixels(slice(start, start + len(broken)))
            rounded = to_bytes(images, clean.cpu()[broken], ball)
            found["rows"].append(kept["rows"][broken])
            found["images"].append(images)
            found["bytes"].append((rounded * 255).round().to(torch.uint8))
        values = {key: torch.cat(value).contiguous() for key, value in found.items()}
        write_bytes(evidence_folder(record) / f"{attack.title}.safetensors", save(values))


@dataclass(frozen=True)
class Recount:
    """One figure, as recorded and as counted again; `None` where one of them is missing."""

    figure: str
    recorded: float | None
    recounted: float | None

    @property
    def agrees(self) -> bool:
        """Whether both are the same."""
        return self.recorded == self.recounted


def recount(path: Path, checkpoint: Path, device: str = "cpu") -> list[Recount]:
    """Count the figures of a record again, from the checkpoint, the data and the kept images.

    Raises:
        CembenchError: when the record is of another checkpoint or other data, or has no evidence.
    """
    record = load_record(path)
    file = checkpoint_file(checkpoint)
    if record.error is not None:
        raise CembenchError(f"{path}: holds no figures: {record.error}")
    if sha256(file) != record.checkpoint_sha256:
        raise CembenchError(f"{path}: of another checkpoint than {file}")
    model, passport = load_checkpoint(file, device)
    protocol = Protocol.parse(record.protocol)
    split, rows = _images(record, protocol, passport)
    with frozen(model), exact():
        watched = Watched(model, len(split.classes)).eval()
        table = _table(watched, split.to(torch.device(device)), rows, protocol, record, path)
    titles = [attack.title for attack in protocol.attacks]
    again = count(table, titles, {})
    return [*_compared(record.figures, again), *_verdicts(path, table)]


def _images(record: Record, protocol: Protocol, passport: Passport) -> tuple[Split, Tensor]:
    split, rows = subset(passport.images(protocol.split), protocol.limit)
    if split.fingerprint != record.fingerprint:
        raise CembenchError("the attacked images are not those of the record")
    return split, rows


@torch.no_grad()
def _table(
    model: Watched, split: Split, rows: Tensor, protocol: Protocol, record: Record, path: Path
) -> pd.DataFrame:
    ball = ball_of(record.threat)
    x, y = split.pixels(), split.labels
    columns = {"index": rows, "label": y, "clean_pred": _predicted(model, x, protocol)}
    columns["clean_8bit_pred"] = _predicted(model, to_bytes(x, x, ball), protocol)
    table = pd.DataFrame({key: value.cpu().numpy() for key, value in columns.items()})
    place = {int(row): number for number, row in enumerate(rows)}
    for attack in protocol.attacks:
        file = evidence_folder(path) / f"{attack.title}.safetensors"
        numbers, kept = _evidence(file, place, split.shape)
        broken, broken_8bit = torch.zeros(len(x)).bool(), torch.zeros(len(x)).bool()
        for part in _batches(len(numbers), protocol.batch_size):
            where = numbers[part].to(x.device)
            images = kept[part].to(x.device)
            verdict = verify(model, x[where], images, y[where], ball)
            broken[numbers[part]] = verdict.broken.cpu()
            broken_8bit[numbers[part]] = verdict.broken_8bit.cpu()
        table[f"{attack.title}_broken"] = broken.numpy()
        table[f"{attack.title}_broken_8bit"] = broken_8bit.numpy()
        table[f"{attack.title}_by"] = ""
    return table


def _batches(length: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, length, size)]


def _predicted(model: nn.Module, x: Tensor, protocol: Protocol) -> Tensor:
    return torch.cat([model(part).argmax(1) for part in x.split(protocol.batch_size)])


def _evidence(path: Path, place: dict[int, int], shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return where in the split the kept images belong, and the images."""
    try:
        kept = load_file(path)
        numbers = torch.tensor([place[int(row)] for row in kept["rows"]], dtype=torch.long)
        return numbers, kept["images"].reshape(len(numbers), *shape)
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        raise CembenchError(
            f"{path}: no adversarial images, or damaged; evaluate with --save-adversarial"
        ) from error


def _compared(recorded: dict[str, Figure], again: dict[str, Figure]) -> list[Recount]:
    rows = []
    for name, figure in again.items():
        old = recorded.get(name)
        eight = None if old is None else old.correct_8bit
        rows.append(Recount(name, None if old is None else old.correct, figure.correct))
        rows.append(Recount(f"{name} (8 bits)", eight, figure.correct_8bit))
    return rows


def _verdicts(path: Path, again: pd.DataFrame) -> list[Recount]:
    """Compare the table beside the record image by image."""
    table = load_table(path)
    shared = [c for c in again.columns if not c.endswith("_by")]
    if len(table) != len(again) or not set(shared) <= set(table.columns):
        return [Recount("images in the table", len(table), len(again))]
    same = (table[shared].to_numpy() == again[shared].to_numpy()).all(1)
    return [Recount("images whose verdicts agree", len(table), int(same.sum()))]

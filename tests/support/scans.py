"""Scans of digits as files of one's own, in the layout of the Hugging Face hub."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from cembench.data.digits import Digits
from tests.data.test_data import write_parquet

NAMES = tuple("0123456789")


def scan(image: Tensor) -> bytes:
    """Return a scan, H×W with 16 levels, as a grey PNG file."""
    stream = io.BytesIO()
    Image.fromarray((image * 15).numpy()).save(stream, "png")
    return stream.getvalue()


def write_scans(folder: Path, rows: Sequence[int], names: Sequence[str] | None = NAMES) -> Path:
    """Write some training scans as parquet; the first 40 of them are the test split too."""
    digits = Digits().load("train")
    images = digits.batch(torch.tensor(list(rows)))[:, 0]
    labels = digits.labels[torch.tensor(list(rows))].tolist()
    folder.mkdir(parents=True)
    for split, count in (("train", len(rows)), ("test", 40)):
        path = folder / f"{split}.parquet"
        write_parquet(path, list(map(scan, images[:count])), labels[:count], names)
    return folder

"""Adversarial images of a record: those on which an attack succeeded, if they were kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from cembench.util.display.image_grid import grid
from cembench.util.display.png import Png
from cembench.util.errors import CembenchError
from cembench.util.files.layout import RunLayout
from cembench.util.files.names import file_name
from cembench.util.files.tensors import read_tensors


@dataclass(frozen=True)
class Adversarial:
    """Images on which an attack succeeded.

    Attributes:
        attack: its title.
        images: N×C×H×W, float32 in [0, 1].
        rows: of each its number in the data set, the column `index` of the verdicts, N.
        labels: the classes of the clean images, N.
    """

    attack: str
    images: Tensor
    rows: Tensor
    labels: Tensor

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.rows)

    def __repr__(self) -> str:
        shape = "×".join(map(str, self.images.shape[1:]))
        return f"<Adversarial {len(self)} images of {shape} by {self.attack}>"

    def grid(self, classes: Sequence[str] | None = None) -> Png:
        """Return a picture of the first ones of each class.

        Args:
            classes: their names; numbers unless given.
        """
        if not len(self):
            raise CembenchError(f"{self.attack} succeeded on no image")
        names = list(classes or map(str, range(int(self.labels.max()) + 1)))
        return Png(grid({self.attack: self.images}, self.labels, names))

    def _repr_png_(self) -> bytes | None:
        return bytes(self.grid()) if len(self) else None


def read_adversarial(record: Path, attack: str, table: pd.DataFrame) -> Adversarial:
    """Read the images of an attack beside a record.

    Args:
        record: its file.
        attack: the title of the attack.
        table: the table of verdicts.

    Raises:
        CembenchError: when they were not kept, are damaged, or are not those of the verdicts.
    """
    path = RunLayout.adversarial(record) / f"{file_name(attack)}.safetensors"
    if not path.is_file():
        raise CembenchError(f"{path}: not there; evaluate with save_adversarial=True to keep it")
    values = read_tensors(path, legacy=True)
    broken = table[table[f"{attack}_broken"]]
    rows, images = values.get("rows"), values.get("images")
    if rows is None or images is None or rows.tolist() != broken["index"].tolist():
        raise CembenchError(f"{path}: not the images that {attack} succeeds on; evaluate again")
    return Adversarial(attack, images, rows, torch.tensor(broken["label"].tolist()))

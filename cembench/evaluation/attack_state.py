"""Who still stands under one attack: updated after every stage, kept on disk, read back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cembench.attacks.verdict import Verdict

BEFORE = "before"  # what broke an image that an attack was not given any more
Columns = dict[str, Tensor | list[str]]


@dataclass
class Standing:
    """The state of an attack on a chunk of N images.

    Attributes:
        stages: how many stages are done.
        broken: N booleans.
        broken_8bit: the same after rounding to bytes.
        by: the number of the stage that broke an image, −1 for none and for attacks before.
        norm: size of the perturbation that did, else NaN.
        images: what broke it; the clean image where nothing did, N×C×H×W.
    """

    stages: int
    broken: Tensor
    broken_8bit: Tensor
    by: Tensor
    norm: Tensor
    images: Tensor

    @classmethod
    def fresh(cls, x: Tensor) -> Standing:
        """Return the state before the first stage."""
        none = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        nan = torch.full((len(x),), torch.nan, device=x.device)
        by = torch.full((len(x),), -1, device=x.device)
        return cls(0, none, none.clone(), by, nan, x.clone())

    def followed(self, other: Standing) -> Standing:
        """Return the state before an attack that comes after this one and the other."""
        wide = self.broken.reshape(-1, 1, 1, 1)
        return Standing(
            0,
            self.broken | other.broken,
            torch.where(self.broken, self.broken_8bit, other.broken_8bit),
            torch.full_like(self.by, -1),
            torch.where(self.broken, self.norm, other.norm),
            torch.where(wide, self.images, other.images),
        )

    @classmethod
    def read(cls, values: dict[str, Tensor], device: torch.device) -> Standing:
        """Return the state that `kept` wrote."""
        other = ("stages", "rows")
        rest = {key: value.to(device) for key, value in values.items() if key not in other}
        return cls(int(values["stages"]), **rest)

    def kept(self) -> dict[str, Tensor]:
        """Return everything as tensors on the CPU."""
        values = {key: torch.as_tensor(value).cpu() for key, value in vars(self).items()}
        return {key: value.clone() for key, value in values.items()}

    def record(self, rows: Tensor, verdict: Verdict) -> None:
        """Take in what a stage did to these rows."""
        won = rows[verdict.success]
        self.broken[won] = True
        self.by[won] = self.stages
        self.norm[won] = verdict.size[verdict.success]
        self.images[won] = verdict.images[verdict.success]
        self.broken_8bit[rows] = verdict.success_8bit
        self.stages += 1

    def columns(self, title: str, names: list[str]) -> Columns:
        """Return the columns of an attack in the table of verdicts."""
        pairs = zip(self.by.tolist(), self.broken.tolist(), strict=True)
        by = [names[stage] if stage >= 0 else BEFORE * broken for stage, broken in pairs]
        values: Columns = {
            "broken": self.broken,
            "broken_8bit": self.broken_8bit,
            "by": by,
            "norm": self.norm,
        }
        return {f"{title}_{key}": value for key, value in values.items()}

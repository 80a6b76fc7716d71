"""The progress of one attack on a chunk of images."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from cembench.attacks.verdict import Verdict
from cembench.energy.norms import NORMS, by_norm
from cembench.evaluation.sections.robustness import PARTS
from cembench.util.rng import generator_of

BEFORE = "before"  # what succeeded on an image that an attack was not given any more

DRAWN, REST, UNTRIED = (PARTS.index(part) for part in PARTS[1:])


@dataclass
class AttackProgress:
    """The state of an attack on a chunk of N images.

    Attributes:
        stages: how many stages are done.
        broken: whether a stage succeeded, N booleans.
        broken_8bit: the same after rounding to 8 bits.
        by: the number of that stage; −1 for none, and for attacks before.
        norm: the size of its perturbation, else NaN.
        images: the adversarial images, in the ball or `outside`; the clean image where there is
            none, N×C×H×W.
        outside: whether the network is fooled outside the ball or [0, 1] alone, N booleans.
        part: what sampled stages do with each image, N indices of `PARTS`.
        names: of the stages.
    """

    stages: int
    broken: Tensor
    broken_8bit: Tensor
    by: Tensor
    norm: Tensor
    images: Tensor
    outside: Tensor
    part: Tensor
    names: list[str] = field(default_factory=list)

    @classmethod
    def fresh(cls, x: Tensor) -> AttackProgress:
        """Return the state before the first stage."""
        none = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        nan = torch.full((len(x),), torch.nan, device=x.device)
        by = torch.full((len(x),), -1, device=x.device)
        part = torch.zeros_like(by)
        return cls(0, none, none.clone(), by, nan, x.clone(), none.clone(), part)

    def restarted(self) -> AttackProgress:
        """Return a copy in which no stage is done, for the next attack."""
        copy = deepcopy(self)
        copy.stages, copy.names = 0, []
        copy.by.fill_(-1)
        copy.outside.fill_(False)
        copy.part.fill_(0)
        return copy

    def followed_by(self, other: AttackProgress) -> AttackProgress:
        """Return the state after this attack and the next one."""
        wide = self.broken.reshape(-1, 1, 1, 1)
        return replace(
            self,
            broken=self.broken | other.broken,
            broken_8bit=torch.where(self.broken, self.broken_8bit, other.broken_8bit),
            norm=torch.where(self.broken, self.norm, other.norm),
            images=torch.where(wide, self.images, other.images),
        )

    @classmethod
    def read(cls, values: dict[str, Tensor], device: torch.device) -> AttackProgress:
        """Return the state that `tensors` returned."""
        rest = {k: v.to(device) for k, v in values.items() if k not in ("stages", "rows")}
        return cls(stages=int(values["stages"]), names=[], **rest)

    def tensors(self) -> dict[str, Tensor]:
        """Return everything as tensors on the CPU."""
        values = {key: value for key, value in vars(self).items() if key != "names"}
        return {key: torch.as_tensor(value).cpu().clone() for key, value in values.items()}

    def record(self, rows: Tensor, verdict: Verdict) -> None:
        """Take in what a stage did to these rows."""
        won = rows[verdict.success]
        self.broken[won] = True
        self.by[won] = self.stages
        self.norm[won] = verdict.size[verdict.success]
        self.images[won] = verdict.images[verdict.success]
        self.outside[won] = False
        first = verdict.outside & ~self.outside[rows]
        self.images[rows[first]] = verdict.images[first]
        self.outside[rows[first]] = True
        self.broken_8bit[rows] = verdict.success_8bit
        self.stages += 1

    def draw(self, left: Tensor, count: int, seed: int) -> None:
        """Draw the sample that sampled stages attack first, unless that is done.

        Images are in one random order per seed, whichever are left and whatever the device, so two
        networks are attacked on nearly the same ones.

        Args:
            left: the images to draw from, N booleans.
            count: how many; all of them if there are fewer.
            seed: of the order.
        """
        if bool(self.part.any()):
            return
        order = torch.randperm(len(left), generator=generator_of(seed, "cpu")).to(left.device)
        drawn = order[left[order]][:count]
        self.part[left] = UNTRIED
        self.part[drawn] = DRAWN

    def release(self) -> None:
        """Have all images attacked if a sampled stage succeeded on one of the sample."""
        if bool((self.broken & (self.part == DRAWN)).any()):
            self.part[self.part == UNTRIED] = REST

    def credit(self, by: Sequence[str]) -> None:
        """Say which stage succeeded on each image, by name, where that is known from elsewhere."""
        self.names = sorted({name for name in by if name not in ("", BEFORE)})
        found = [self.names.index(name) if name in self.names else -1 for name in by]
        self.by = torch.tensor(found, device=self.by.device)

    @property
    def parts(self) -> list[str]:
        """What sampled stages do with each image, in words."""
        return [PARTS[part] for part in self.part.tolist()]

    def columns(self, title: str) -> dict[str, Tensor | list[str]]:
        """Return the columns of an attack in the table of verdicts."""
        pairs = zip(self.by.tolist(), self.broken.tolist(), strict=True)
        by = [self.names[stage] if stage >= 0 else BEFORE * broken for stage, broken in pairs]
        return {
            f"{title}_broken": self.broken,
            f"{title}_broken_8bit": self.broken_8bit,
            f"{title}_by": by,
            f"{title}_norm": self.norm,
            f"{title}_outside": self.outside,
        }

    def sizes(self, norm: str, x: Tensor, correct: Tensor) -> Tensor:
        """Return the size of the change that fools the network, in a norm and in [0, 1], N values.

        Clean images x are N×C×H×W. It is 0 for an image that is not `correct` without attack (N
        booleans), and infinite where none is known.
        """
        ball = by_norm(NORMS, norm, "the size of a perturbation")(0.0)
        size = ball.size((self.images - x).double()).float()
        inside = ((self.images >= 0) & (self.images <= 1)).flatten(1).all(1)
        known = inside & (self.broken | self.outside)
        size = torch.where(known, size, torch.inf)
        return torch.where(correct, size, 0.0)

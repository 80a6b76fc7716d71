"""Runs of APGD: how a batch of iterates steps in a norm, and adapts its steps."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from cembench.energy.norms import Ball, per_row

MOMENTUM = 0.75
MIN_RISES = 0.75  # ρ: the step size is halved if the loss rises in a smaller fraction of steps
SPARSER = 0.95  # a best iterate with fewer changes than this share of those before is sparser
SHRINK = 1.5  # of the step size, and of the share of values that change
SMALLEST = 10  # how much smaller than ε the step size becomes at most


@dataclass(frozen=True)
class Runs(ABC):
    """M runs of APGD: the current iterates, the best ones, and what steps depend on.

    Attributes:
        ball: where iterates stay.
        onto_ball: the projection onto the balls around the images.
        row: of which images they are.
        step: the step sizes, M×1×1×1.
        longest: of them, in radii.
        restarts: random starts in AutoAttack's standard version.
        targets: of its targeted version.
    """

    ball: Ball
    onto_ball: Callable[[Tensor], Tensor]
    row: Tensor
    y: Tensor
    target: Tensor
    centre: Tensor
    x: Tensor
    loss: Tensor
    gradient: Tensor
    best: Tensor
    best_loss: Tensor
    best_gradient: Tensor
    step: Tensor
    longest: ClassVar[float]
    restarts: ClassVar[int] = 1
    targets: ClassVar[int] = 9

    @classmethod
    def begin(
        cls,
        ball: Ball,
        row: Tensor,
        y: Tensor,
        target: Tensor,
        centre: Tensor,
        x: Tensor,
        loss: Tensor,
        gradient: Tensor,
    ) -> Self:
        """Return the runs that start at x, M×C×H×W."""
        step = torch.full_like(loss, cls.longest * ball.eps).reshape(-1, 1, 1, 1)
        best = {"best": x, "best_loss": loss, "best_gradient": gradient}
        now = {"x": x, "loss": loss, "gradient": gradient, "step": step}
        which = {"row": row, "y": y, "target": target, "centre": centre}
        tensors = which | now | best | cls._extra(x, loss, centre)
        return cls(ball=ball, onto_ball=ball.projection(centre), **tensors)

    @staticmethod
    @abstractmethod
    def _extra(x: Tensor, loss: Tensor, centre: Tensor) -> dict[str, Tensor]:
        """Return what the runs of a norm have besides, at the beginning."""

    @staticmethod
    def balls(ball: Ball, steps: int) -> list[tuple[Ball, int]]:
        """Return the balls that it runs in, one after the other, with the steps in each."""
        return [(ball, steps)]

    @staticmethod
    @abstractmethod
    def checks(steps: int) -> dict[int, int]:
        """Return the steps after which `adapt` is called, and how many have passed since."""

    @abstractmethod
    def advance(self, number: int) -> Self:
        """Take step `number`, from 1."""

    @abstractmethod
    def adapt(self, steps: int) -> Self:
        """Adapt the step size, and return to the best iterate, as the last steps suggest."""

    def select(self, kept: Tensor) -> Self:
        """Return some of the runs, by their indices."""
        values: dict[str, Any] = {
            key: value[kept] for key, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **values, onto_ball=self.ball.projection(values["centre"]))

    def update(self, loss: Tensor, gradient: Tensor, number: int) -> Self:
        """Take in loss and gradient at the iterate of step `number`."""
        wide = per_row(loss > self.best_loss, self.x)
        return replace(
            self,
            loss=loss,
            gradient=gradient,
            best=torch.where(wide, self.x, self.best),
            best_loss=torch.maximum(loss, self.best_loss),
            best_gradient=torch.where(wide, gradient, self.best_gradient),
        )

    def _back(self, where: Tensor) -> Self:
        """Return to the best iterate in some of the runs."""
        wide = per_row(where, self.x)
        x = torch.where(wide, self.best, self.x)
        return replace(self, x=x, gradient=torch.where(wide, self.best_gradient, self.gradient))


@dataclass(frozen=True)
class MomentumRuns(Runs):
    """Steps with momentum, halved where the loss rises too rarely (arXiv 2003.01690)."""

    previous: Tensor
    checked_loss: Tensor
    rises: Tensor
    halved: Tensor
    longest: ClassVar[float] = 2

    @staticmethod
    def _extra(x: Tensor, loss: Tensor, centre: Tensor) -> dict[str, Tensor]:
        rows = torch.zeros(len(x), dtype=torch.long, device=x.device)
        return {"previous": x, "checked_loss": loss, "rises": rows, "halved": rows == 0}

    @staticmethod
    def checks(steps: int) -> dict[int, int]:
        """Return checks that follow each other ever sooner."""
        interval, shorter, shortest = (max(1, int(part * steps)) for part in (0.22, 0.03, 0.06))
        found, at = {}, interval
        while at <= steps:
            found[at] = interval
            interval = max(interval - shorter, shortest)
            at += interval
        return found

    def advance(self, number: int) -> Self:
        """Take a step along the steepest direction, with momentum but for the first."""
        momentum = MOMENTUM if number > 1 else 1.0
        there = self.onto_ball(self.x + self.step * self.ball.steepest(self.gradient))
        if momentum < 1:
            there = self.x + (there - self.x) * momentum + (self.x - self.previous) * (1 - momentum)
        return replace(self, x=self.onto_ball(there), previous=self.x)

    def update(self, loss: Tensor, gradient: Tensor, number: int) -> Self:
        """Count rises too."""
        # The official code compares the first loss with an empty log, which holds zeros.
        last = self.loss if number > 1 else torch.zeros_like(loss)
        found = super().update(loss, gradient, number)
        return replace(found, rises=self.rises + (loss > last))

    def adapt(self, steps: int) -> Self:
        """Halve the step size and return to the best iterate where the loss rose too rarely."""
        stuck = ~self.halved & (self.checked_loss >= self.best_loss)
        halve = (self.rises <= steps * MIN_RISES) | stuck
        return replace(
            self._back(halve),
            step=torch.where(per_row(halve, self.x), self.step / 2, self.step),
            halved=halve,
            checked_loss=self.best_loss,
            rises=torch.zeros_like(self.rises),
        )


@dataclass(frozen=True)
class SparseRuns(Runs):
    """APGD in ℓ1: sparse steps, whose sparsity follows that of the best iterate.

    It runs in balls of 3 ε and 2 ε first, and projects the best iterate onto the next ball (Croce
    and Hein, arXiv 2103.01208, algorithm 2 and section 4).

    Attributes:
        share: of the values that a step changes, M.
        changed: how many values differed in the best iterate when last checked, M.
    """

    share: Tensor
    changed: Tensor
    longest: ClassVar[float] = 1
    restarts: ClassVar[int] = 5
    targets: ClassVar[int] = 5

    @staticmethod
    def _extra(x: Tensor, loss: Tensor, centre: Tensor) -> dict[str, Tensor]:
        changed = _changed(x, centre)
        return {"share": changed / centre[0].numel() / SHRINK, "changed": changed}

    @staticmethod
    def balls(ball: Ball, steps: int) -> list[tuple[Ball, int]]:
        """Return balls of 3 ε, 2 ε and ε."""
        first = math.ceil(0.3 * steps)
        return [
            (replace(ball, eps=3.0 * ball.eps), first),
            (replace(ball, eps=2.0 * ball.eps), first),
            (ball, steps - 2 * first),
        ]

    @staticmethod
    def checks(steps: int) -> dict[int, int]:
        """Return checks after every 4 % of the steps."""
        interval = max(1, int(0.04 * steps))
        return dict.fromkeys(range(interval, steps + 1, interval), interval)

    def advance(self, number: int) -> Self:
        """Take a step that changes the values with the largest gradients alike."""
        size = self.gradient.abs().flatten(1)
        values = size.shape[1]
        place = ((1 - self.share) * values).clamp(0, values - 1).long()[:, None]
        least = size.sort(1).values.gather(1, place)
        step = self.gradient.sign() * (size >= least).view_as(self.gradient)
        length = per_row(step.abs().flatten(1).sum(1), step) + 1e-10
        return replace(self, x=self.onto_ball(self.x + self.step * step / length))

    def adapt(self, steps: int) -> Self:
        """Go on from the best iterate with long steps where it is sparser, else with shorter."""
        changed, eps = _changed(self.best, self.centre), self.ball.eps
        sparser = changed / self.changed < SPARSER
        step = torch.where(per_row(sparser, self.x), eps, self.step / SHRINK)
        return replace(
            self._back(sparser),
            step=step.clamp(eps / SMALLEST, eps),
            share=changed / self.centre[0].numel() / SHRINK,
            changed=changed,
        )


RUNS: dict[str, type[Runs]] = {"linf": MomentumRuns, "l2": MomentumRuns, "l1": SparseRuns}


def _changed(x: Tensor, centre: Tensor) -> Tensor:
    return (x != centre).flatten(1).sum(1)

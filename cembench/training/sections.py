"""Sections of an experiment: optimizer, schedule, divergence, validation, pretrained weights."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cembench.data import HELD_OUT
from cembench.util.settings import Count, Fraction, LabelUse, NonNegative, Positive, Settings


class Optimizer(Settings):
    """SGD with (Nesterov) momentum, or AdamW.

    Attributes:
        name: which of the two.
        lr: the learning rate, which the schedule multiplies.
        weight_decay: of all weights; decoupled from the gradient in AdamW.
        momentum: of SGD alone.
        nesterov: Nesterov's momentum, of SGD alone.
        clip: the largest norm of the gradient before a step; longer ones are scaled down to it.
    """

    name: Literal["sgd", "adamw"] = "sgd"
    lr: Positive = 0.1
    weight_decay: NonNegative = 5e-4
    momentum: Fraction = 0.9
    nesterov: bool = False
    clip: Positive | None = None

    @model_validator(mode="after")
    def _momentum(self) -> Self:
        if self.name == "sgd" and self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs momentum above 0")
        return self


class Schedule(Settings):
    """The learning rate over the run, as a factor of `optimizer.lr`; it moves with every step.

    Attributes:
        name: `cosine` falls to zero, `one-cycle` rises linearly until `peak` and falls linearly to
            zero, `multistep` multiplies by `gamma` at each of `milestones`.
        peak: the share of the run at which `one-cycle` is highest.
        milestones: epochs, for `multistep`.
        gamma: the factor of `multistep`.
    """

    name: Literal["constant", "cosine", "one-cycle", "multistep"] = "cosine"
    peak: Fraction = 0.3
    milestones: list[Count] = [100, 150]
    gamma: Positive = 0.1


class Divergence(Settings):
    """What happens when a loss, an energy or a weight is not finite, or beyond `bound`.

    Attributes:
        policy: `stop` ends the run; `rollback` goes back to the last epoch, lowers the learning
            rate, draws new randomness, and counts it. Energy-based training diverges now and then,
            so jem, cem, dat and np-jem roll back unless told otherwise, and the others stop.
        bound: the largest loss and energy, whatever their sign.
        lower: what a rollback multiplies the learning rate by.
        limit: rollbacks after which the run gives up.
    """

    policy: Literal["stop", "rollback"] | None = None
    bound: Positive = 1e8
    lower: Annotated[Positive, Field(le=1)] = 0.5
    limit: Count = 5


class Validation(Settings):
    """Model selection, on images that are cut from the training split and never trained on.

    Attributes:
        fraction: their share of the training split.
        images: how many of them are attacked, at most; all are classified.
        steps: gradients of that attack, PGD.
        every: epochs from one look to the next; the last epoch is always looked at.
    """

    fraction: Annotated[Fraction, Field(gt=0)] = HELD_OUT
    images: Count = 1000
    steps: Count = 10
    every: Count = 1


class Pretrained(Settings):
    """Weights that training starts from: the features of another run, under a new head.

    Attributes:
        checkpoint: that run: its checkpoint or its folder.
        frozen: whether the head alone is trained.
        weights: their digest. This and what follows is filled in when training begins.
        method: what trained them.
        gradients: gradient evaluations that they cost, images times steps.
        labels: what their training knew of the labels.
        recipe: identifies that experiment whatever its seed.
    """

    checkpoint: str
    frozen: bool = False
    weights: str = ""
    method: str = ""
    gradients: int = 0
    labels: LabelUse = "all"
    recipe: str = ""

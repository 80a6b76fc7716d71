"""Sections of an experiment: optimizer, schedule, divergence, validation, pretrained weights."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cembench.data import HELD_OUT
from cembench.util.settings import (
    Count,
    Fraction,
    LabelUse,
    NonNegative,
    Positive,
    Settings,
    optional_field,
)


class Optimizer(Settings):
    """SGD with (Nesterov) momentum, or AdamW.

    Attributes:
        name: `sgd` or `adamw`.
        lr: learning rate, which the schedule multiplies.
        weight_decay: weight decay of all weights; decoupled from the gradient in AdamW.
        momentum: momentum of SGD; AdamW has none.
        nesterov: whether that is Nesterov's momentum.
        clip: largest norm of the gradient; longer gradients are scaled down to it.
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
    """Learning rate over the run, as a factor of `optimizer.lr`; it changes with every step.

    Attributes:
        name: `cosine` falls to zero, `one-cycle` rises linearly until `peak` and falls linearly to
            zero, `multistep` multiplies by `gamma` at each of `milestones`.
        peak: fraction of the run at which `one-cycle` is highest.
        milestones: epochs of `multistep`.
        gamma: factor of `multistep`.
    """

    name: Literal["constant", "cosine", "one-cycle", "multistep"] = "cosine"
    peak: Fraction = 0.3
    milestones: Annotated[list[Count], Field(max_length=100)] = [100, 150]
    gamma: Annotated[Positive, Field(le=1000)] = 0.1


class Divergence(Settings):
    """Response to a loss, an energy or a weight that is not finite, or beyond `bound`.

    Attributes:
        policy: `stop` ends the run; `rollback` goes back to the last epoch, lowers the learning
            rate, changes the random numbers, and logs it. Default: `rollback` for jem, eb-jdat,
            cem, cem-b, dat and np-jem, since energy-based training diverges now and then, and
            `stop` for the others.
        bound: largest absolute value of loss and energies.
        lower: factor by which a rollback multiplies the learning rate.
        limit: number of rollbacks after which the run ends, 1000 at most.
    """

    policy: Literal["stop", "rollback"] | None = None
    bound: Positive = 1e8
    lower: Annotated[Positive, Field(le=1)] = 0.5
    limit: Annotated[Count, Field(le=1000)] = 5


class Validation(Settings):
    """Model selection on images that are held out of the training split and never trained on.

    Attributes:
        fraction: fraction of the training split that is held out.
        images: largest number of held-out images that are attacked; all are classified.
        steps: steps of that attack, PGD.
        every: epochs between validations; the last epoch is always validated.
    """

    fraction: Annotated[Fraction, Field(gt=0)] = HELD_OUT
    images: Count = 1000
    steps: Count = 10
    every: Count = 1


class Pretrained(Settings):
    """Pretrained weights: the features of another run, under a new head or with its own.

    Attributes:
        checkpoint: checkpoint or folder of that run.
        frozen: whether the head alone is trained.
        head: whether the last layer is `new`, or `kept` too: that continues the training of a
            classifier with another method or threat model.
        weights: digest of the weights. This and the keys below are filled in when training begins.
        method: method that trained them.
        gradients: gradient evaluations of their training, images times steps.
        labels: labels that their training used.
        recipe: digest of that experiment without its seed.
    """

    checkpoint: str
    frozen: bool = False
    head: Literal["new", "kept"] = optional_field("new")
    weights: str = ""
    method: str = ""
    gradients: int = 0
    labels: LabelUse = "all"
    recipe: str = ""

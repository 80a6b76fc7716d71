"""Samplers by name: combinations of potential, start, direction, noise and projection.

Most serve twice: `draw` makes the negatives of a training step, which `negatives:` in a config
names, and PGD's `search` is the attack of an evaluation.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from cembench.energy.threat import Threat
from cembench.util.registry import Registry
from cembench.util.settings import Choice, Count, Label

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from cembench.data.split import Split
    from cembench.samplers.initial import GaussianInit, ReplayBuffer


@dataclass(frozen=True)
class Scene:
    """Where a sampler works.

    Attributes:
        threat: the threat model.
        generator: a source of randomness on the images' device.
        seeds: class-conditional Gaussians, for samplers that start from them.
        buffer: a replay buffer, for samplers that start from it.
        outside: images of another data set, for samplers that start from them.
        data: training images, for samplers that tell images from others.
        history: what training has logged so far, a row an epoch.
    """

    threat: Threat
    generator: torch.Generator
    seeds: GaussianInit | None = None
    buffer: ReplayBuffer | None = None
    outside: Split | None = None
    data: Split | None = None
    history: Sequence[Mapping[str, float]] = ()


class Sampler(Choice):
    """Makes negatives from a model.

    Attributes:
        label: its name in tables; the name of the sampler unless given.
        steps: gradients an image.
        mode: the mode of the model while it is climbed. `train` uses batch statistics in batch
            norm; the running statistics stay as they were either way.
        reads: what it is told to go for: a class, by its logit; an image, by its embedding; or
            nothing. The last two work on encoders too.
        coupled: whether each sample depends on those that are drawn together with it.
    """

    label: Label | None = None
    steps: Count = 10
    mode: Literal["eval", "train"] = "eval"

    reads: ClassVar[Literal["logits", "images", "nothing"]] = "logits"
    coupled: ClassVar[bool] = False

    @property
    def begins(self) -> str:
        """Where chains start: `data`, unless the sampler has a choice."""
        return "data"

    @property
    def in_ball(self) -> bool:
        """Whether it stays in the ball of the threat model."""
        return False

    @property
    def title(self) -> str:
        """Name and start, under which samples are ranked."""
        return f"{self.label or self.name}-{self.begins}"

    @property
    def paired(self) -> bool:
        """Whether a negative belongs to the image or label that it was drawn for."""
        return True

    @property
    def places(self) -> int:
        """The places of the replay buffer that the sampler starts from; 0 for none."""
        return 0

    @abstractmethod
    def draw(
        self, model: nn.Module, x: Tensor, y: Tensor, scene: Scene, target: Tensor | None = None
    ) -> Tensor:
        """Return one negative for each image, detached.

        Args:
            model: images to logits.
            x: images, N×C×H×W.
            y: their labels, N, which decide on class-conditional starts.
            scene: the threat model, randomness, and what chains can start from.
            target: the logits to climb or to leave, N; those of the labels unless given.
        """


samplers: Registry[Sampler] = Registry(
    "sampler",
    Sampler,
    {
        "pgd": "cembench.samplers.pgd:PGD",
        "trades": "cembench.samplers.pgd:TRADES",
        "sgld": "cembench.samplers.energy:SGLD",
        "ta": "cembench.samplers.energy:TA",
        "cs": "cembench.samplers.energy:CS",
        "rcs": "cembench.samplers.energy:RCS",
        "maxent": "cembench.samplers.embedding:MaxEnt",
        "infonce": "cembench.samplers.embedding:InfoNCE",
        "np-sgld": "cembench.samplers.embedding:NPSGLD",
    },
)

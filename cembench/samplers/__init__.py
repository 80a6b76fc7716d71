"""Samplers by name: a potential, initial images, a direction, noise and a projection.

`negatives:` in a config names the sampler that makes the negatives of a training step, `samplers:`
in a protocol those whose samples are measured. PGD's `search` is the attack of an evaluation.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from cembench.energy.threat import Threat
from cembench.util.registry import Registry
from cembench.util.settings import Choice, Count, Label

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from cembench.data import DataSettings
    from cembench.data.split import Split
    from cembench.models.copies.surrogate import Surrogate
    from cembench.samplers.initial import GaussianInit, ReplayBuffer

TargetType = Literal["class", "image", "none"]
FITTED = ("gaussian", "pooled", "cluster")  # kinds of Gaussians
FROM_DATA = ("data", "smooth")  # kinds of initial images that are made of the data
FOR_TRAINING = "draws no samples: it makes negatives within several threat models; take pgd"


@dataclass(frozen=True)
class Needs:
    """Requirements of a sampler: what has to be fitted or loaded before it draws.

    Attributes:
        gaussians: kind of the Gaussians fitted on training images: one per class (`gaussian`), one
            in all (`pooled`) or one per k-means cluster (`cluster`).
        clusters: number of those clusters.
        buffer_size: images in the replay buffer; 0 without one.
        other_data: data set whose images chains start from.
        bank_size: training images that samples are compared with; 0 without a comparison.
        image: row of the training image that all samples approach; a random one each unless given.
    """

    gaussians: str | None = None
    clusters: int = 1
    buffer_size: int = 0
    other_data: DataSettings | None = None
    bank_size: int = 0
    image: int | None = None


@dataclass(frozen=True)
class InitialImages:
    """Images prepared for a sampler, as its `Needs` say; None where it needs none.

    Attributes:
        gaussians: Gaussians fitted on training images.
        buffer: replay buffer.
        other_data: images of another data set, resized to the model's shape.
        training: training images that samples are compared with.
    """

    gaussians: GaussianInit | None = None
    buffer: ReplayBuffer | None = None
    other_data: Split | None = None
    training: Split | None = None


@dataclass(frozen=True)
class SamplerContext:
    """Inputs of a sampler besides model, images and labels.

    Attributes:
        threat: threat model.
        generator: source of randomness, on the device of the images.
        initial: images that chains start from.
        history: what training has logged so far, one row per epoch.
        epoch: epochs of training done.
        memory: what method and negatives of a training keep from step to step.
        growth: share of every radius that counts at this point of a run, which may begin with less.
        surrogate: copy of the network in training, which an ascent follows in its place.
    """

    threat: Threat
    generator: torch.Generator
    initial: InitialImages = field(default_factory=InitialImages)
    history: Sequence[Mapping[str, float]] = ()
    epoch: int = 0
    memory: dict[str, Any] = field(default_factory=dict)
    growth: float = 1.0
    surrogate: Surrogate | None = None


class Sampler(Choice):
    """Procedure that makes images from a model: negatives of a training step, or samples.

    Attributes:
        label: name in tables; the name of the sampler unless given.
        target_type: what a sample approaches: a class, by its logit; a training image, by its
            embedding; or nothing. Samplers of the last two types also work on encoders.
        coupled: whether each sample depends on the others of its batch.
    """

    label: Label | None = None

    target_type: ClassVar[TargetType] = "class"
    coupled: ClassVar[bool] = False

    @property
    @abstractmethod
    def gradients(self) -> int:
        """Gradient evaluations per image."""

    @property
    def copies(self) -> int:
        """Images that `draw` returns for each one: one, unless it is for training alone."""
        return 1

    @property
    def own_threats(self) -> tuple[Threat, ...]:
        """Threat models that it attacks within in place of that of the context, if it has any."""
        return ()

    @property
    def init(self) -> str:
        """Kind of the initial images: `data`, unless the sampler has a choice."""
        return "data"

    @property
    def in_ball(self) -> bool:
        """Whether samples stay in the ball of the threat model."""
        return False

    @property
    def title(self) -> str:
        """Name and kind of initial images, under which samples are ranked."""
        return f"{self.label or self.name}-{self.init}"

    @property
    def paired_with_data(self) -> bool:
        """Whether a negative belongs to the image or label that it was drawn for."""
        return True

    def needs(self) -> Needs:
        """Return what has to be prepared before the sampler draws."""
        return Needs()

    def require_possible(self, threat: Threat) -> None:
        """Refuse a step that reaches every image, in the norm of the threat model.

        Raises:
            ConfigError: naming the key.
        """

    @abstractmethod
    def draw(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        context: SamplerContext,
        target: Tensor | None = None,
    ) -> Tensor:
        """Return one sample per image, N×C×H×W, detached; `copies` times N, one set after another.

        Args:
            model: images to logits, N×K.
            x: images, N×C×H×W.
            y: their labels, N, which select class-conditional initial images.
            context: threat model, randomness and initial images.
            target: columns of the logits to ascend or to leave, N; the labels unless given.
        """


class Ascent(Sampler):
    """Sampler that takes gradient steps.

    Attributes:
        steps: gradients per image.
        mode: mode of the model during the ascent. `train` uses batch statistics in batch norm; the
            running statistics do not change in either mode.
    """

    steps: Count = 10
    mode: Literal["eval", "train"] = "eval"

    @property
    def gradients(self) -> int:
        """Gradient evaluations per image: one per step."""
        return self.steps


samplers: Registry[Sampler] = Registry(
    "sampler",
    Sampler,
    {
        "pgd": "cembench.samplers.pgd:PGD",
        "trades": "cembench.samplers.pgd:TRADES",
        "eb-jdat": "cembench.samplers.eb_jdat:EBJDATInner",
        "max": "cembench.samplers.several:Max",
        "avg": "cembench.samplers.several:Avg",
        "sat": "cembench.samplers.several:SAT",
        "e-at": "cembench.samplers.several:EAT",
        "sgld": "cembench.samplers.logits:SGLD",
        "ta": "cembench.samplers.logits:TA",
        "cs": "cembench.samplers.logits:CS",
        "rcs": "cembench.samplers.logits:RCS",
        "confidence": "cembench.samplers.logits:Confidence",
        "maxent": "cembench.samplers.embedding:MaxEnt",
        "infonce": "cembench.samplers.embedding:InfoNCE",
        "np-sgld": "cembench.samplers.embedding:NPSGLD",
    },
)

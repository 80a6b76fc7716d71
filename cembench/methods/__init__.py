"""Training methods by name; each is one file with its settings and its loss."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import model_validator

from cembench.samplers import Sampler
from cembench.util.registry import Registry
from cembench.util.settings import Choice, Fraction, LabelUse

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cembench.data.split import Split
    from cembench.energy.threat import Threat
    from cembench.models.classifier import Classifier
    from cembench.models.heads import Head
    from cembench.samplers import SamplerContext


class Method(Choice):
    """Training objective.

    Attributes:
        select: which epoch is kept by default; the values of `select` in an experiment.
        on_divergence: default of `divergence.policy`.
        labels: what it may know of the labels; with `none` it is given none.
        trainable: whether it takes optimiser steps.
        min_batch_size: smallest batch that it works on.
        supports_ddp: whether a batch may be split over processes; not if the loss compares its
            images with each other.
    """

    select: ClassVar[Literal["robust", "clean", "last"]] = "clean"
    on_divergence: ClassVar[Literal["stop", "rollback"]] = "stop"
    labels: ClassVar[LabelUse] = "all"
    trainable: ClassVar[bool] = True
    min_batch_size: ClassVar[int] = 1
    supports_ddp: ClassVar[bool] = True

    @model_validator(mode="after")
    def _negatives_have_a_class(self) -> Self:
        for key, sampler in self.samplers.items():
            if sampler.target_type != "class":
                name = sampler.name
                raise ValueError(f"{key}: {name} draws samples, it makes no negatives; take pgd")
        return self

    @abstractmethod
    def loss(
        self, model: nn.Module, x: Tensor, y: Tensor, context: SamplerContext
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss to minimise, a scalar, and values to log by name.

        Args:
            model: the network in training mode; its logits carry gradients.
            x: images in [0, 1], N×C×H×W.
            y: labels, N.
            context: threat model at this point of the run, randomness, initial images of samplers.
        """

    def threat_at(self, threat: Threat, epoch: float) -> Threat:
        """Return the threat model after `epoch` epochs, a fractional number."""
        return threat

    @property
    def first_kept(self) -> int:
        """First epoch, counted from 1, whose weights may be kept."""
        return 1

    @property
    def samplers(self) -> dict[str, Sampler]:
        """Samplers among the settings, by key."""
        return {key: value for key, value in self if isinstance(value, Sampler)}

    @property
    def sampler(self) -> Sampler | None:
        """Sampler whose initial images training prepares: `negatives`, if there is one."""
        return self.samplers.get("negatives")

    @property
    def head(self) -> Head | None:
        """Head on the features of the network, if not its own last layer."""
        return None

    @property
    def kind(self) -> Literal["classifier", "encoder"]:
        """Kind of the trained network."""
        head = self.head
        return "encoder" if head is not None and head.encodes else "classifier"

    def fit(self, model: Classifier, data: Split) -> None:
        """Prepare the network with the training images, once, before the first epoch."""

    def validation_metrics(
        self, model: nn.Module, held: Split, seed: int
    ) -> dict[str, float] | None:
        """Return metrics of an epoch on held-out images; None for clean and PGD accuracy.

        Args:
            model: the network.
            held: images that training does not use, with labels.
            seed: decides all randomness, the same in every epoch.
        """
        return None

    def cost(self, context: SamplerContext) -> int:
        """Gradient evaluations per image and step, for comparisons at equal compute."""
        return 1


class Supervised(Method):
    """Method that uses labels.

    Attributes:
        label_smoothing: share of the target distribution that is uniform over all classes, in each
            cross-entropy.
    """

    label_smoothing: Fraction = 0.0


methods: Registry[Method] = Registry(
    "method",
    Method,
    {
        "standard": "cembench.methods.standard:Standard",
        "at": "cembench.methods.at:AT",
        "trades": "cembench.methods.trades:Trades",
        "jem": "cembench.methods.jem:JEM",
        "dat": "cembench.methods.dat:DAT",
        "cem": "cembench.methods.cem:CEM",
        "infonce": "cembench.methods.infonce:InfoNCE",
        "adv-infonce": "cembench.methods.adv_infonce:AdvInfoNCE",
        "np-jem": "cembench.methods.np_jem:NPJEM",
        "knn": "cembench.methods.knn:KNN",
    },
)

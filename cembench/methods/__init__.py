"""Training methods by name. Each is one file: its settings and its loss."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import model_validator

from cembench.util.registry import Registry
from cembench.util.settings import Choice, Fraction, LabelUse

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cembench.data.split import Split
    from cembench.energy.threat import Threat
    from cembench.models.classifier import Classifier
    from cembench.models.heads import Head
    from cembench.samplers import Sampler, Scene


class Method(Choice):
    """A training objective.

    Attributes:
        labels: what it may know of the labels; with `none` it is given none.
        trainable: whether it takes optimiser steps.
        min_batch_size: the smallest batch that it can work on.
        supports_ddp: whether a batch may be split over processes; not if its images are told apart.
    """

    select: ClassVar[Literal["robust", "clean", "last"]] = "clean"
    on_divergence: ClassVar[Literal["stop", "rollback"]] = "stop"
    labels: ClassVar[LabelUse] = "all"
    trainable: ClassVar[bool] = True
    min_batch_size: ClassVar[int] = 1
    supports_ddp: ClassVar[bool] = True

    @model_validator(mode="after")
    def _climb_logits(self) -> Self:
        for key in type(self).model_fields:
            if getattr(getattr(self, key), "reads", "logits") != "logits":
                name = getattr(self, key).name
                raise ValueError(f"{key}: {name} draws samples, it makes no negatives; take pgd")
        return self

    @abstractmethod
    def loss(
        self, model: nn.Module, x: Tensor, y: Tensor, scene: Scene
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss to minimise, a scalar, and parts of it to log by name.

        Args:
            model: the network in training mode; its logits carry gradients.
            x: images in [0, 1], N×C×H×W.
            y: labels, N.
            scene: the threat model at this point of the run, and a source of randomness.
        """

    def threat_at(self, threat: Threat, epoch: float) -> Threat:
        """Return the threat model after `epoch` epochs, counted in fractions."""
        return threat

    @property
    def first_kept(self) -> int:
        """The first epoch, counted from 1, whose weights may be kept."""
        return 1

    @property
    def sampler(self) -> Sampler | None:
        """What draws from the model, if anything: it decides on seeds, buffer and other data."""
        return getattr(self, "negatives", None)

    @property
    def head(self) -> Head | None:
        """What sits on the features of the network, if not its own last layer."""
        return None

    @property
    def kind(self) -> Literal["classifier", "encoder"]:
        """What it trains."""
        head = self.head
        return "encoder" if head is not None and head.encodes else "classifier"

    def fit(self, model: Classifier, data: Split) -> None:
        """Do what is to be done once, before the first epoch, with the training images."""

    def figures(self, model: nn.Module, held: Split, seed: int) -> dict[str, float] | None:
        """Return what an epoch is judged by, on held-out images; accuracies unless given.

        Args:
            model: the network.
            held: images that training does not use, with labels.
            seed: decides all randomness, the same in every epoch.
        """
        return None

    def cost(self, scene: Scene) -> int:
        """Gradient evaluations an image and step: the currency of equal-compute comparisons."""
        return 1


class Supervised(Method):
    """A method that reads labels.

    Attributes:
        label_smoothing: the share of the target spread over all classes in each cross-entropy.
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

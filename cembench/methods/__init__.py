"""Training methods by name; each is one file with its settings and its loss."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import SerializeAsAny, model_validator

from cembench.data.augmentation import Augment
from cembench.methods.perturbation import Perturbation, perturbations
from cembench.samplers import Sampler
from cembench.util.registry import Registry
from cembench.util.settings import Choice, Fraction, LabelUse, optional_field

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cembench.data.split import Split
    from cembench.energy.threat import Threat
    from cembench.models.classifier import Classifier
    from cembench.models.heads import Head
    from cembench.samplers import SamplerContext


OnePerturbation = Annotated[SerializeAsAny[Perturbation], perturbations.field()]


class Method(Choice):
    """Training objective.

    A step has two halves: `draw` makes all images that the loss reads, at the weights as they are,
    and `loss` is a function of weights and images alone. So the loss can be taken at other weights.

    Attributes:
        weights: perturbation of the weights at which the loss is taken: `awp`, `sam`, or none.
        select: which epoch is kept by default; the values of `select` in an experiment.
        on_divergence: default of `divergence.policy`.
        labels: what it may know of the labels; with `none` it is given none.
        trainable: whether it takes optimiser steps.
        min_batch_size: smallest batch that it works on.
        attacks: whether `negatives` are attacked images, which `draw` calls `attacked`; only then
            may they be within several threat models.
    """

    select: ClassVar[Literal["robust", "clean", "last"]] = "clean"
    on_divergence: ClassVar[Literal["stop", "rollback"]] = "stop"
    labels: ClassVar[LabelUse] = "all"
    trainable: ClassVar[bool] = True
    min_batch_size: ClassVar[int] = 1
    attacks: ClassVar[bool] = False
    weights: OnePerturbation | None = optional_field(None)

    @model_validator(mode="after")
    def _negatives_have_a_class(self) -> Self:
        for key, sampler in self.samplers.items():
            if sampler.target_type != "class":
                name = sampler.name
                raise ValueError(f"{key}: {name} draws samples, it makes no negatives; take pgd")
            if sampler.own_threats and not (self.attacks and key == "negatives"):
                allowed = "`negatives` of methods that train on attacked images, such as at"
                raise ValueError(f"{key}: {sampler.name} is for {allowed}")
        return self

    def objective(
        self, model: nn.Module, x: Tensor, y: Tensor, context: SamplerContext
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return what a step minimises, and scalars to log: the loss of images drawn for x, y.

        Where several negatives of each image were drawn, it is the mean loss over them.
        """
        images = self.draw(model, x, y, context)
        moved = self.moved(model, images, y, context)
        found = [self.loss(moved, part, y, context) for part in self._parts(images)]
        values = {key: _mean([values[key] for _, values in found]) for key in found[0][1]}
        return _mean([loss for loss, _ in found]), values

    def _parts(self, images: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """Return the images with one negative of each, once per negative."""
        if self._copies == 1:
            return [images]
        drawn = images["attacked"].chunk(self._copies)
        return [{**images, "attacked": negatives} for negatives in drawn]

    @property
    def _copies(self) -> int:
        """Negatives of each image."""
        negatives = self.samplers.get("negatives")
        return 1 if negatives is None else negatives.copies

    def draw(
        self, model: nn.Module, x: Tensor, y: Tensor, context: SamplerContext
    ) -> dict[str, Tensor]:
        """Return the images that the loss reads, by name, detached: the data, unless overridden.

        Args:
            model: the network in training mode.
            x: images in [0, 1], N×C×H×W; those of each further branch follow.
            y: labels, N; those of each further branch follow.
            context: threat model at this point of the run, randomness, initial images of samplers.
        """
        return {"x": x}

    @abstractmethod
    def loss(
        self, model: nn.Module, images: dict[str, Tensor], y: Tensor, context: SamplerContext
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss to minimise, a scalar, and values by name.

        Scalars are logged; tensors of another shape are for `learn` alone.

        Args:
            model: the network in training mode; its logits carry gradients.
            images: what `draw` returned.
            y: labels, as `draw` was given them.
            context: the same as in `draw`.
        """

    def moved(
        self, model: nn.Module, images: dict[str, Tensor], y: Tensor, context: SamplerContext
    ) -> nn.Module:
        """Return the network at the weights where the loss is taken."""
        if self.weights is None or context.epoch < self.weights.warmup:
            return model
        return self.weights.moved(
            model,
            lambda net: _mean([self.climbed(net, p, y, context) for p in self._parts(images)]),
        )

    def climbed(
        self, model: nn.Module, images: dict[str, Tensor], y: Tensor, context: SamplerContext
    ) -> Tensor:
        """Return the scalar that perturbed weights climb: the loss itself, unless overridden."""
        return self.loss(model, images, y, context)[0]

    def learn(self, memory: dict[str, Any], values: dict[str, Tensor], images: int) -> None:
        """Change what is kept from step to step, after a step.

        Args:
            memory: plain values and tensors by name, empty at first; they are saved with the state
                of a run.
            values: what the loss returned by name, means over all processes.
            images: images of the step, of all processes.
        """

    def threat_at(self, threat: Threat, epoch: float) -> Threat:
        """Return the threat model after `epoch` epochs, a fractional number."""
        return threat

    @property
    def own_threats(self) -> tuple[Threat, ...]:
        """Threat models of its negatives, where these do not take that of the experiment."""
        negatives = self.samplers.get("negatives")
        return () if negatives is None else negatives.own_threats

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
        """Sampler whose initial images training prepares: `contrast`, or else `negatives`."""
        found = self.samplers
        return found.get("contrast", found.get("negatives"))

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

    @property
    def title(self) -> str:
        """Name in tables: that of the method, and of the perturbation of the weights."""
        return self.name if self.weights is None else f"{self.name}-{self.weights.name}"

    @property
    def branches(self) -> tuple[Augment, ...]:
        """How the batches of a step are augmented: one batch, unless overridden.

        Each branch reads the images in an order of its own.
        """
        return (Augment(),)

    def cost(self, context: SamplerContext) -> int:
        """Gradient evaluations per image and step, for comparisons at equal compute."""
        perturbed = self.weights is not None and context.epoch >= self.weights.warmup
        once = self.loss_cost(context) + (self.climbed_cost(context) if perturbed else 0)
        return self.draw_cost(context) + self._copies * once

    def draw_cost(self, context: SamplerContext) -> int:
        """Gradient evaluations per image of `draw`: those of all samplers."""
        return sum(sampler.gradients for sampler in self.samplers.values())

    def loss_cost(self, context: SamplerContext) -> int:
        """Gradients of the weights per image of `loss`: the batches that it reads."""
        return 1

    def climbed_cost(self, context: SamplerContext) -> int:
        """Gradients of the weights per image of `climbed`: as many as of the loss."""
        return self.loss_cost(context)


def _mean(values: list[Tensor]) -> Tensor:
    first, *others = values
    return sum(others, first) / len(values) if others else first


class Supervised(Method):
    """Method that uses labels.

    Attributes:
        label_smoothing: share of the target distribution that is uniform over all classes, in each
            cross-entropy.
        augment: augmentation of the images.
    """

    label_smoothing: Fraction = 0.0
    augment: Augment = optional_field(Augment())

    @property
    def branches(self) -> tuple[Augment, ...]:
        """How the batches of a step are augmented."""
        return (self.augment,)


methods: Registry[Method] = Registry(
    "method",
    Method,
    {
        "standard": "cembench.methods.standard:Standard",
        "at": "cembench.methods.at:AT",
        "trades": "cembench.methods.trades:Trades",
        "mart": "cembench.methods.mart:MART",
        "gkl": "cembench.methods.gkl:GKL",
        "weat": "cembench.methods.weat:WEAT",
        "ratio": "cembench.methods.ratio:RATIO",
        "jem": "cembench.methods.jem:JEM",
        "eb-jdat": "cembench.methods.eb_jdat:EBJDAT",
        "dat": "cembench.methods.dat:DAT",
        "cem": "cembench.methods.cem:CEM",
        "cem-b": "cembench.methods.cem_b:CEMB",
        "infonce": "cembench.methods.infonce:InfoNCE",
        "adv-infonce": "cembench.methods.adv_infonce:AdvInfoNCE",
        "np-jem": "cembench.methods.np_jem:NPJEM",
        "knn": "cembench.methods.knn:KNN",
    },
)

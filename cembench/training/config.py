"""Experiment: data, model, method and training settings; one YAML file holds one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializeAsAny, ValidationInfo, field_validator, model_validator

from cembench.data import DataSettings, datasets
from cembench.energy.threat import Threat, ThreatChange
from cembench.methods import Method, methods
from cembench.models import ModelSettings, models
from cembench.models.recipe import without_paths
from cembench.training.recipes import kind_of
from cembench.training.sections import Divergence, Optimizer, Pretrained, Schedule, Validation
from cembench.training.trackers import Tracker, trackers
from cembench.util.errors import ConfigError, blaming
from cembench.util.files.yaml import read_yaml
from cembench.util.overrides import override
from cembench.util.settings import Count, Fraction, LabelUse, Positive, Settings, optional_field
from cembench.util.shipped import find_file


class Experiment(Settings):
    """Experiment: everything that decides the weights of a run, and its trackers.

    Attributes:
        data: data set: a name, or a name with settings.
        model: architecture.
        method: training objective.
        threat: threat model of its attacks; keys that are not given are customary for the data set.
            Negatives with threat models of their own are attacked within those; then this is the
            first of them unless given, and says what the checkpoint is evaluated with.
        optimizer: optimizer settings.
        schedule: learning rate over the run.
        epochs: passes over the training images.
        epoch_images: images of an epoch; all training images unless given. With it, each epoch goes
            on in the order of the images where the last one stopped.
        batch_size: images per step; a rest smaller than a batch is left out of the epoch.
        precision: `bf16` runs the networks under autocast.
        compile: whether to use `torch.compile`.
        batch_norm: in several processes, whether batch statistics are those of the whole batch
            (`synchronised`) or of the share of each process (`local`).
        ema: decay of a moving average of the weights, which is then what is kept; 0 for none.
        seed: seed of weights, order, augmentation and all other random numbers.
        select: which epoch is kept: the best on held-out images under PGD (`robust`) or without
            attack (`clean`), or the `last`. Default: `robust` for methods that train on attacked
            images, `last` for those without labels, `clean` for the others.
        pretrained: run whose features training starts from.
        validation: held-out images, on which the epoch is selected.
        divergence: what happens when a loss, an energy or a weight is not finite.
        tracker: trackers of the history besides `history.csv`: a name, settings, or a list of them.
            They do not affect results, so they are no part of what identifies a run.
        save_every: minutes after which the state is saved within an epoch too, for epochs that take
            hours; a run that is killed goes on from there. It is no part of what identifies a run.
        processes: processes that share each batch, and the images of the evaluation, where a suite
            runs the experiment: `cembench run` and `work` start them through torchrun. It is no
            part of what identifies a run.
    """

    data: Annotated[SerializeAsAny[DataSettings], datasets.field()]
    model: Annotated[SerializeAsAny[ModelSettings], models.field()]
    method: Annotated[SerializeAsAny[Method], methods.field()]
    threat: Threat = Field(None, validate_default=True)
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    epochs: Count = 30
    epoch_images: Count | None = optional_field(None)
    batch_size: Count = 128
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = optional_field(False)
    batch_norm: Literal["synchronised", "local"] = optional_field("synchronised")
    ema: Fraction = 0.0
    seed: Annotated[int, Field(ge=0)] = 0
    select: Literal["robust", "clean", "last"] = Field(None, validate_default=True)
    pretrained: Pretrained | None = None
    validation: Validation = Validation()
    divergence: Divergence = Divergence()
    tracker: list[Annotated[SerializeAsAny[Tracker], trackers.field()]] = Field([], exclude=True)
    save_every: Positive | None = Field(None, exclude=True)
    processes: Count = Field(1, exclude=True)

    @property
    def title(self) -> str:
        """Name of the method in tables: `at`, or `infonce+adv-linear` for a probe."""
        start, own = self.pretrained, self.method.title
        if start is None:
            return own
        manner = {"standard": "", "at": "adv-"}.get(own, f"{own}-")
        part = manner + ("linear" if start.frozen else "finetune")
        return f"{start.method or 'pretrained'}+{part if self.method.trainable else own}"

    @property
    def threats(self) -> tuple[Threat, ...]:
        """Threat models that it trains against: one, unless its negatives have several."""
        return self.method.own_threats or (self.threat,)

    @property
    def identity(self) -> dict[str, Any]:
        """Settings that identify the run: all but the path of the weights that it starts from."""
        return without_paths(self.dump())

    @property
    def labels(self) -> LabelUse:
        """Labels that training used, those of the pretrained weights included."""
        start = self.pretrained
        seen = start is not None and start.labels == "all"  # a probe's own features saw none
        if self.method.labels == "none":
            return "all" if seen else "none"
        return "probe" if start is not None and start.frozen and not seen else "all"

    @field_validator("threat", mode="before")
    @classmethod
    def _customary(cls, value: Any, info: ValidationInfo) -> Threat:
        """Return the threat model, with the values that are customary for the data set."""
        change = ThreatChange.parse(value or {})
        own = info.data["method"].own_threats if "method" in info.data else ()
        if "data" in info.data:
            return change.over(own[0] if own else info.data["data"].threat)
        return Threat(norm="linf", eps=0)  # the data is wrong, so nobody gets to see it

    @field_validator("select", mode="before")
    @classmethod
    def _wanted(cls, value: Any, info: ValidationInfo) -> Any:
        """Return the selection, which is the default of the method unless given."""
        if value is not None:
            return value
        return info.data["method"].select if "method" in info.data else "last"

    @field_validator("tracker", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        if isinstance(value, list):
            return value
        return [] if value is None else [trackers.parse(value)]

    @field_validator("tracker")
    @classmethod
    def _distinct(cls, values: list[Tracker]) -> list[Tracker]:
        names = [tracker.name for tracker in values]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"{twice[0]} is given twice")
        return values

    @model_validator(mode="after")
    def _without_labels(self) -> Self:
        if self.method.labels == "none" and self.select != "last":
            raise ValueError(
                f"select: {self.select} needs labels, which {self.method.name} does not use; "
                "leave it out"
            )
        return self

    @model_validator(mode="after")
    def _possible_steps(self) -> Self:
        for key, sampler in self.method.samplers.items():
            try:
                sampler.require_possible(self.threat)
            except ConfigError as error:
                ((place, text),) = error.problems
                raise ConfigError.single(text, "method", key, *place) from None
        return self

    @model_validator(mode="after")
    def _enough_images(self) -> Self:
        if self.batch_size < self.method.min_batch_size:
            raise ValueError(
                f"batch_size: {self.method.name} compares images with each other, so it needs "
                f"{self.method.min_batch_size} or more, got {self.batch_size}"
            )
        return self

    @model_validator(mode="after")
    def _has_features(self) -> Self:
        frozen = self.pretrained is not None and self.pretrained.frozen
        if not self.method.trainable and not frozen:
            raise ValueError(
                f"method {self.method.name} trains nothing: give it pretrained: "
                "{checkpoint: …, frozen: true}"
            )
        return self

    @model_validator(mode="after")
    def _long_enough(self) -> Self:
        if self.method.first_kept > self.epochs:
            first = self.method.first_kept
            raise ValueError(f"{self.method.name} keeps epoch {first} or later; raise epochs")
        return self


def load_experiment(
    config: Path, overrides: Sequence[str] = (), data: DataSettings | None = None
) -> Experiment:
    """Read an experiment from a file or a recipe, with `key.inner=value` overrides applied.

    `data` stands for the data set that it says.

    Raises:
        ConfigError: naming the file, each wrong key, its place and the nearest valid name.
    """
    values = read_yaml(find_file("recipe", str(config)))
    if kind_of(values) == "suite":
        raise ConfigError.single(f"{config}: a suite; cembench run {config} takes it")
    given = {} if data is None else {"data": data}
    return parse_experiment(override({**values, **given}, overrides), str(config))


def parse_experiment(values: dict[str, Any], source: str) -> Experiment:
    """Return a validated experiment; `source` is the file that errors name."""
    with blaming(source):
        return Experiment.parse(values)

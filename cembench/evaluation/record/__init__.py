"""The record of an evaluation: every figure with what it takes to check it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from pydantic import PrivateAttr, create_model

from cembench.energy.threat import Threat
from cembench.evaluation.record import display
from cembench.evaluation.record.origin import Origin
from cembench.evaluation.sections import RESULTS, SANITY
from cembench.evaluation.sections.sanity import ALWAYS
from cembench.util.settings import LabelUse, Settings, optional_field

FORMAT = 4


class Header(Settings):
    """What a record says besides its figures.

    Attributes:
        format: version of the file.
        run: name of the run folder, or of the file.
        method: what trained it, a probe beside what it probes.
        dataset: the name under which it is ranked.
        model: the architecture.
        seed: the seed of training.
        epoch: the epoch whose weights were evaluated.
        finished: whether training had come to its end.
        threat: the threat model of the attacks.
        protocol: the resolved protocol.
        protocol_digest: identifies everything in it that decides verdicts.
        split: `test` or `validation`.
        data: the resolved data set.
        fingerprint: SHA-256 of the attacked images.
        checkpoint_sha256: SHA-256 of the file that was read; empty if training left none.
        checkpoint_seal: the seal in that file, by which it is known without reading all of it, if
            it has one.
        inputs: SHA-256 of the training split, the extractor's weights and the replay buffer.
        parameters: number of trained parameters.
        gradients: gradient evaluations of training, images times steps.
        kind: of the network; an encoder has figures of its samples alone.
        weights_sha256: digest of the weights alone, the same when a file says more of them.
        divergences: times that training was rolled back.
        labels: what training knew of the labels: `all`, `probe` or `none`.
        train_seconds: wall time of training as its history tells, if there is one.
        train_images_per_second: training images per second of it, where samples are measured.
        sample_images_per_second: by sampler, samples drawn per second of wall time, by the process
            that wrote the record; empty where it found all of them in the cache.
        flops: floating-point operations of a forward pass on one image, two for a multiplication
            and its addition; None where they cannot be counted.
        recipe: identifies the experiment whatever its seed; empty for weights trained elsewhere.
        table_sha256: SHA-256 of the table of verdicts beside it; empty where there is none.
        error: why there are no figures.
        no_gradient: why the network has no gradient with respect to its images, if it has none:
            its figures are those under black-box attacks alone.
        not_applicable: the attacks and their stages, the samplers and the other parts of the
            protocol that were left out for that; `samples` where no training images were given.
        warnings: what attacks warned of.
        environment: versions, device and threads.
        seconds: wall time of the evaluation.
        created: when it ended, UTC.
    """

    format: int = FORMAT
    kind: Literal["classifier", "encoder"] = "classifier"
    run: str
    method: str
    dataset: str
    model: str
    seed: int
    recipe: str = ""
    epoch: int = 0
    finished: bool = True
    threat: Threat
    protocol: dict[str, Any]
    protocol_digest: str
    split: str = "test"
    data: dict[str, Any]
    fingerprint: str
    checkpoint_sha256: str
    checkpoint_seal: str = optional_field("")
    weights_sha256: str = ""
    labels: LabelUse = "all"
    inputs: dict[str, str] = {}
    parameters: int = 0
    gradients: int = 0
    divergences: int = 0
    train_seconds: float | None = None
    train_images_per_second: float | None = optional_field(None)
    sample_images_per_second: dict[str, float] = optional_field({})
    flops: int | None = optional_field(None)
    table_sha256: str = ""
    error: str | None = None
    no_gradient: str = optional_field("")
    not_applicable: list[str] = optional_field([])
    warnings: list[str] = []
    environment: dict[str, Any] = {}
    seconds: float = 0.0
    created: str = ""


if TYPE_CHECKING:
    import pandas as pd
    from matplotlib import figure

    from cembench.evaluation.record.adversarial import Adversarial
    from cembench.evaluation.sections.robustness import Figure

    class Base(Header):
        """The keys of sections are those of `cembench.evaluation.sections`."""

        def __getattr__(self, key: str) -> Any: ...

else:
    Base = create_model("Base", __base__=Header, **RESULTS)


class Record(Base):
    """One checkpoint under one protocol: the header, and the result of each section.

    `figures`, `threats`, `minimal`, `generation`, `density`, `sanity`, `curve`, `counterfactuals`,
    `corruptions` and `certified` are results of sections; they are empty after an error, and where
    the protocol asks for nothing.
    """

    _replaced: bool = PrivateAttr(False)
    _accepted: str = PrivateAttr("")
    _origin: Origin = PrivateAttr(default_factory=Origin)

    def __repr__(self) -> str:
        return display.line(self)

    def __str__(self) -> str:
        return display.line(self)

    def _repr_html_(self) -> str:
        return display.page(self)

    def to_frame(self) -> pd.DataFrame:
        """Return a row for each accuracy: clean, under each attack, and in the worst case.

        Under further threat models it is that of `l2-0.5 pgd`, and `union` is that under all.
        """
        return display.frame(self)

    def verdicts(self) -> pd.DataFrame:
        """Return the verdicts, one row per attacked image.

        Column `index` is the number of the image in the data set, `label` its class, `clean_pred`
        what the network makes of it, `pgd_broken` whether the attack `pgd` succeeds, and so on.

        Raises:
            CembenchError: when the table was not kept, is damaged or another one.
        """
        return self._origin.verdicts(self)

    def adversarial(self, attack: str) -> Adversarial:
        """Return the images on which an attack succeeded, which a notebook shows.

        Args:
            attack: its title, such as `pgd`.

        Raises:
            CembenchError: when there is no such attack, or images were not kept, as
                `save_adversarial` of `cembench.evaluate` does.
        """
        return self._origin.adversarial(self, attack)

    def plot(self, what: str = "accuracy") -> figure.Figure:
        """Return a figure of matplotlib, which a notebook shows.

        Args:
            what: `accuracy`, all of them with their intervals, or another chart of the record, such
                as `curves`, `energies` or `calibration`.

        Raises:
            CembenchError: when it has no such chart.
        """
        # What draws is in a room above this one, which does without it otherwise.
        drawn: figure.Figure = import_module("cembench.reporting.plots.record").figure(self, what)
        return drawn

    @property
    def accuracies(self) -> dict[str, Figure]:
        """Every accuracy by name: `figures`, those under further threat models, and `union`."""
        return {**self.figures, **({} if self.threats is None else self.threats.figures)}

    @property
    def replaced(self) -> bool:
        """Whether the checkpoint beside its file is not the one that was measured.

        Only a record that `load_beside` returned knows; no file says it.
        """
        return self._replaced

    @property
    def accepted(self) -> str:
        """What the keeper of a board did with it: `recounted`, `not re-run`, or nothing.

        Only a record that `load_beside` returned knows; no record says it of itself.
        """
        return self._accepted

    @property
    def sanity_failed(self) -> list[str]:
        """The names of the sanity checks that fail; `no_gradient` comes first, if it has none."""
        failed = [check.name for check in SANITY.of(self) if check.verdict == "fail"]
        return ["no_gradient"] * bool(self.no_gradient) + failed

    @property
    def unchecked(self) -> bool:
        """Whether it has accuracies under attack, but no verdict of a check that looks at them.

        The protocol asks for none, or too few images were classified correctly.
        """
        asked = [check for check in SANITY.of(self) if check.name not in ALWAYS]
        made = any(check.verdict != "skipped" for check in asked)
        return len(self.figures) > 1 and "sanity" in self.protocol and not made

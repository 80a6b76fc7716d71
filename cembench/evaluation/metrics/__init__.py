"""Further figures of samples by name, which a protocol asks for with `samples.metrics`."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

from cembench.util.errors import CembenchError
from cembench.util.registry import Registry
from cembench.util.settings import Choice, Label, optional_field

if TYPE_CHECKING:
    from cembench.evaluation.extractors.features import ImageFeatures

# Columns of tables are called after metrics, so these are taken.
TAKEN = {"kid", "fd", "is", "precision", "recall", "nearest", "gain", "lse", "acc", "ece", "run"}
TAKEN |= {"method", "labels", "sampler", "dataset", "start", "ball", "extractor", "reference"}
TAKEN |= {"steps", "seed", "divergences", "protocol", "plan", "recipe", "fingerprint", "error"}


class Metric(Choice):
    """A figure of a set of images beside real ones.

    Attributes:
        better: which direction is.
        against: the real images beside which: those of the reference, or the training images
            without held-out ones.
        label: its name in tables; the name of the metric unless given.
    """

    label: Label | None = optional_field(None)

    better: ClassVar[Literal["higher", "lower"]]
    against: ClassVar[Literal["reference", "train"]] = "reference"

    @property
    def title(self) -> str:
        """The name under which figures are kept."""
        return self.label or self.name

    @abstractmethod
    def measure(self, samples: ImageFeatures, real: ImageFeatures) -> float:
        """Return the figure of a set of images.

        Global random numbers are the same in every call, and have no effect elsewhere.

        Args:
            samples: the images as bytes, what an extractor sees in them, and their labels.
            real: the same of the real images that `against` names.
        """

    def finite(self, samples: ImageFeatures, real: ImageFeatures) -> float:
        """Return it as a plain number.

        Raises:
            CembenchError: in one line, whatever went wrong.
        """
        try:
            value = float(self.measure(samples, real))
        except Exception as error:  # the code of others
            reason = (str(error).splitlines() or [""])[0]
            what = (
                reason if isinstance(error, CembenchError) else f"{type(error).__name__} {reason}"
            )
            raise CembenchError(f"metric {self.title}: {what.strip()}") from error
        if not math.isfinite(value):
            raise CembenchError(f"metric {self.title}: returned {value}")
        return value


metrics: Registry[Metric] = Registry(
    "metric",
    Metric,
    {
        "density": "cembench.evaluation.metrics.density_coverage:Density",
        "coverage": "cembench.evaluation.metrics.density_coverage:Coverage",
        "authpct": "cembench.evaluation.metrics.authenticity:AuthPct",
        "vendi": "cembench.evaluation.metrics.vendi:Vendi",
        "fd-train": "cembench.evaluation.metrics.distances:FdTrain",
        "fd-infinity": "cembench.evaluation.metrics.distances:FdInfinity",
        "fd": "cembench.evaluation.metrics.distances:FdAt",
        "kid": "cembench.evaluation.metrics.distances:KidAt",
    },
)

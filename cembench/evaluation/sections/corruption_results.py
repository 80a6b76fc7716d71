"""Results of the section `corruptions`: accuracy and density by corruption and severity."""

from __future__ import annotations

from typing import Literal

from cembench.data.corruptions import COMMON, SEVERITIES
from cembench.evaluation.statistics import MeanStd, Rate
from cembench.util.settings import Settings


class CorruptedImages(Rate):
    """Images under one corruption at one severity.

    Attributes:
        lse: LSE f(x, ·) = log p(x) + log Z of them.
        auroc: probability that a clean image has a higher LSE than a corrupted one.
    """

    lse: MeanStd
    auroc: float


class MeanAccuracy(Settings):
    """A mean of the accuracies under several corruptions, on the same images.

    Attributes:
        accuracy: the mean.
        low: lower end of the normal 95 % interval of the mean over images; of Wilson's where all
            images are right, or all wrong.
        high: its upper end.
    """

    accuracy: float
    low: float
    high: float


class SeverityFigures(Settings):
    """All corruptions of the mean at one severity.

    Attributes:
        mean: their mean accuracy.
        worst_case: images that are classified correctly under every one of them.
        lse_change: mean LSE of corrupted minus clean images.
        auroc: mean of their AUROCs.
    """

    mean: MeanAccuracy
    worst_case: Rate
    lse_change: float
    auroc: float


class Corruptions(Settings):
    """Common corruptions (Hendrycks & Dietterich, arXiv 1903.12261) of the attacked images.

    Attributes:
        title: what columns begin with: `corruptions`, or `cifar10-c` for the files of CIFAR-10-C;
            it ends with what is missing where the mean is not over 15 corruptions and 5 severities.
        source: whose parameters they were generated with, or `files`.
        clean: the images without corruption, in 8 bits.
        clean_lse: their LSE f(x, ·).
        counted: the corruptions that the mean is over.
        left_out: corruptions that were asked for, and need the extra `[corruptions]`.
        mean: accuracy, mean over corruptions and severities.
        mce: mean corruption error: the errors of each corruption over the baseline's, mean over
            corruptions; None without a baseline.
        severities: figures of each severity.
        cells: each corruption at each severity.
    """

    title: str
    source: Literal["cifar-c", "imagenet-c", "files"]
    clean: Rate
    clean_lse: MeanStd
    counted: list[str]
    left_out: list[str] = []
    mean: MeanAccuracy
    mce: float | None = None
    severities: dict[str, SeverityFigures]
    cells: dict[str, dict[str, CorruptedImages]]

    def accuracy(self, name: str) -> float:
        """Return the accuracy under a corruption, mean over the severities."""
        cells = self.cells[name].values()
        return sum(cell.accuracy for cell in cells) / len(cells)

    @property
    def complete(self) -> bool:
        """Whether the mean is over the 15 common corruptions at five severities."""
        return {*self.counted} == {*COMMON} and len(self.severities) == len(SEVERITIES)

    @property
    def worst(self) -> str:
        """The corruption of the mean with the lowest accuracy."""
        return min(self.counted, key=self.accuracy)

    @property
    def auroc(self) -> float:
        """The AUROC of LSE, mean over corruptions and severities."""
        return sum(one.auroc for one in self.severities.values()) / len(self.severities)


def title_of(start: str, counted: list[str], severities: list[int]) -> str:
    """Return what columns begin with, so that no mean over a part passes for that over all."""
    if severities == [*SEVERITIES]:
        if {*counted} == {*COMMON}:
            return start
        if {*counted} == {*COMMON} - {"frost"}:
            return f"{start}-without-frost"
    return f"{start}-{len(counted)}x{len(severities)}"

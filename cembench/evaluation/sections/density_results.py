"""Results of the section `density`: calibration, energies, out-of-distribution scores."""

from __future__ import annotations

from cembench.evaluation.statistics import MeanStd, Rate
from cembench.util.settings import Settings, optional_field

ATTACKED = "-attacked"  # the end of the title of a set whose images are attacked


class Bin(Settings):
    """The images whose confidence lies between two values.

    Attributes:
        low: the lower one.
        high: the higher one.
        images: how many.
        confidence: their mean confidence; None for no images.
        accuracy: the share that is classified correctly; None for no images.
    """

    low: float
    high: float
    images: int
    confidence: float | None = None
    accuracy: float | None = None


class Calibration(Settings):
    """The expected calibration error (Guo et al., arXiv 1706.04599) and the table it sums up.

    Attributes:
        ece: mean distance of confidence and accuracy over the bins, weighted by their images.
        bins: from the lowest confidence to the highest.
    """

    ece: float
    bins: list[Bin]


class OODScores(Settings):
    """How well a score separates test images from out-of-distribution images.

    Attributes:
        others: number of out-of-distribution images.
        auroc: probability that a test image scores higher than another image.
        fpr95: share of the others that pass when 95 % of the test images do.
    """

    others: int
    auroc: float
    fpr95: float


class EnergyShift(Settings):
    """Test images pushed inside the ball: accuracy, and the mean change of LSE f(x, ·).

    Attributes:
        accuracy: of the pushed images.
        lse_change: that mean.
        lse_error: its standard error.
    """

    accuracy: Rate
    lse_change: float
    lse_error: float


class Density(Settings):
    """What the network says of p(x).

    Attributes:
        calibration: of the confidence.
        nll: negative log-likelihood of the label, −log p(y|x), over the test images.
        brier: Brier score, Σ_k (p(k|x) − [k = y])², over the test images (0 to 2).
        energies: LSE on `clean` images, on `pgd` and `ta` images, on `noise`, on
            out-of-distribution sets, and on the samples and the initial images of each sampler.
        outside_fingerprints: SHA-256 of the out-of-distribution sets.
        outside: by set, then by score: `log_px`, `max_softmax`, and `slope`, minus the norm of
            ∇ₓ log p(x) (JEM, arXiv 1912.03263, section 5.3).
        outside_attacked: as `outside`, with the out-of-distribution images attacked in the ball: by
            PGD that raises the same score, `log_px` or `max_softmax`.
        pushed: PGD, which raises LSE − f_y, beside TA, which raises f_ŷ − LSE for a random ŷ ≠ y:
            same ball, start, step and steps (CEM, arXiv 2203.13455).
    """

    calibration: Calibration
    nll: MeanStd | None = optional_field(None)
    brier: MeanStd | None = optional_field(None)
    energies: dict[str, MeanStd]
    outside: dict[str, dict[str, OODScores]]
    outside_fingerprints: dict[str, str] = {}
    outside_attacked: dict[str, dict[str, OODScores]] = optional_field({})
    pushed: dict[str, EnergyShift]

    @property
    def proper_scores(self) -> dict[str, MeanStd]:
        """The negative log-likelihood and the Brier score, where they are known."""
        scores = {"nll": self.nll, "brier": self.brier}
        return {key: score for key, score in scores.items() if score is not None}

    @property
    def separations(self) -> dict[str, dict[str, OODScores]]:
        """All sets of `outside`, then those whose images are attacked, as `noise-attacked`."""
        attacked = {f"{title}{ATTACKED}": s for title, s in self.outside_attacked.items()}
        return self.outside | attacked

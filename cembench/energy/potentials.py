"""Potentials: the objectives that attacks and samplers maximise by gradient ascent on images.

A potential takes the network's outputs and a target and returns one value per row, in float32. Only
its gradient with respect to the image counts, so constants do not matter. The value of a row under
a `coupled` potential depends on all rows: none may leave the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from cembench import energy
from cembench.energy.norms import unit
from cembench.util.errors import CembenchError
from cembench.util.lazy import lazy_imports

with lazy_imports():
    import torch
    from torch import Tensor

    from cembench.energy.similarity import similarity_logits

Potential = Callable[["Tensor", "Tensor"], "Tensor"]


def cross_entropy(out: Tensor, target: Tensor) -> Tensor:
    """LSE f(x, ·) − f(x, y), the objective of PGD: N×K logits, N labels (arXiv 1706.06083)."""
    return -energy.conditional(out.float(), target)


def marginal(out: Tensor, target: Tensor) -> Tensor:
    """LSE f(x, ·) = log p(x) + log Z, the objective of SGLD (JEM, arXiv 1912.03263); no target."""
    return energy.marginal(out.float())


def conditional(out: Tensor, target: Tensor) -> Tensor:
    """f(x, ŷ) − LSE f(x, ·), the objective of the targeted attack TA: that of PGD, negated."""
    return energy.conditional(out.float(), target)


def joint(out: Tensor, target: Tensor) -> Tensor:
    """f(x, ŷ), the objective of conditional sampling, CS (arXiv 2203.13455)."""
    return energy.joint(out.float(), target)


def reinforced(out: Tensor, target: Tensor) -> Tensor:
    """f(x, ŷ) + LSE f(x, ·), that of reinforced conditional sampling, RCS (arXiv 2203.13455)."""
    return energy.joint(out.float(), target) + energy.marginal(out.float())


def margin(out: Tensor, target: Tensor) -> Tensor:
    """max_{k ≠ y} f(x, k) − f(x, y), above 0 where misclassified (arXiv 1608.04644).

    N×K logits with K ≥ 2, N labels.
    """
    out = out.float()
    rival = out.scatter(1, target[:, None], -math.inf).amax(1)
    return rival - energy.joint(out, target)


def probability_margin(out: Tensor, target: Tensor) -> Tensor:
    """max_{k ≠ y} p(k|x) − p(y|x), the margin of probabilities (PMA, arXiv 2411.15210).

    N×K logits with K ≥ 2, N labels.
    """
    return margin(out.float().softmax(1), target)


def dlr(out: Tensor, target: Tensor) -> Tensor:
    """The margin over the gap of the first and the third logit (DLR, arXiv 2003.01690).

    N×K logits with K ≥ 3, N labels.

    Raises:
        CembenchError: for fewer than three classes.
    """
    if out.shape[1] < 3:
        raise CembenchError("loss dlr needs three classes; take margin")
    out = out.float()
    top, order = out.sort(1)
    own = energy.joint(out, target)
    other = torch.where(order[:, -1] == target, top[:, -2], top[:, -1])
    return (other - own) / (top[:, -1] - top[:, -3] + 1e-12)


def confidence(out: Tensor, target: Tensor) -> Tensor:
    """max_k log p(k|x), which out-of-distribution attacks raise (RATIO, 2003.09461); no target."""
    return out.float().amax(1) - energy.marginal(out.float())


def divergence(out: Tensor, target: Tensor) -> Tensor:
    """KL(p(·|x₀) ‖ p(·|x)), the inner objective of TRADES (arXiv 1901.08573, its code).

    Args:
        out: N×K logits at x.
        target: N×K log-probabilities at the clean x₀.
    """
    return (target.exp() * (target - out.float().log_softmax(1))).sum(1)


def non_uniformity(out: Tensor, target: Tensor) -> Tensor:
    """KL(uniform ‖ p(·|x)) = −log K − mean_k log p(k|x), as in RATIO's code; no target."""
    return -math.log(out.shape[1]) - out.float().log_softmax(1).mean(1)


LOSSES: dict[str, Potential] = {  # of labels, for attacks
    "cross-entropy": cross_entropy,
    "margin": margin,
    "probability-margin": probability_margin,
    "dlr": dlr,
}


class BatchEntropy:
    """−log mean_j exp f(x_i, x_j), the objective of MaxEnt (arXiv 2203.13455); no target.

    It takes N×D embeddings of length 1. Its sum over the batch is largest when they lie as far
    apart as possible.
    """

    coupled = True

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature

    def __call__(self, out: Tensor, target: Tensor) -> Tensor:
        """Return one value per row; each depends on all rows."""
        z = out.float()
        return math.log(len(z)) - energy.marginal(similarity_logits(z, z, self.temperature))


class WithDistance:
    """Another potential plus w·‖u(x) − u(x₀)‖², where u is the logits scaled to length 1.

    The inner objective of EB-JDAT's code (arXiv 2505.19459), which calls the distance perceptual.

    Args:
        potential: the other potential.
        weight: w.
        clean: N×K logits at the images x₀.
    """

    def __init__(self, potential: Potential, weight: float, clean: Tensor) -> None:
        self.potential, self.weight = potential, weight
        self.clean = unit(clean.float())

    def __call__(self, out: Tensor, target: Tensor) -> Tensor:
        """Return one value per row."""
        distance = (unit(out.float()) - self.clean).square().sum(1)
        return self.potential(out, target) + self.weight * distance

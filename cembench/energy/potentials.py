"""Potentials: the objectives that attacks and samplers maximise by gradient ascent on images.

A potential takes the network's outputs and a target and returns one value per row, in float32. Only
its gradient with respect to the image counts, so constants do not matter. The value of a row under
a `coupled` potential depends on all rows: none may leave the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from cembench import energy
from cembench.util.lazy import lazy_imports

with lazy_imports():
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


def divergence(out: Tensor, target: Tensor) -> Tensor:
    """KL(p(·|x₀) ‖ p(·|x)), the inner objective of TRADES (arXiv 1901.08573, its code).

    Args:
        out: N×K logits at x.
        target: N×K log-probabilities at the clean x₀.
    """
    return (target.exp() * (target - out.float().log_softmax(1))).sum(1)


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

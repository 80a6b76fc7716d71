"""The scalar fields that attacks and samplers climb.

A potential reads the network's outputs and a target and gives one value a row. It climbs by its
gradient with respect to the image, so constants do not matter. One that is `coupled` reads all rows
for each: none may leave the batch. Half precision ends here: values
are float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from cembench import energy
from cembench.energy.similarity import similarity_logits

Potential = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(out: Tensor, target: Tensor) -> Tensor:
    """LSE f(x, ·) − f(x, y), climbed by PGD: N×K logits and N labels (arXiv 1706.06083)."""
    return -energy.conditional(out.float(), target)


def marginal(out: Tensor, target: Tensor) -> Tensor:
    """LSE f(x, ·) = log p(x) + log Z, climbed by SGLD (JEM, arXiv 1912.03263); no target."""
    return energy.marginal(out.float())


def conditional(out: Tensor, target: Tensor) -> Tensor:
    """f(x, ŷ) − LSE f(x, ·), climbed by the targeted attack TA: PGD's potential, turned round."""
    return energy.conditional(out.float(), target)


def joint(out: Tensor, target: Tensor) -> Tensor:
    """f(x, ŷ), climbed by conditional sampling, CS (arXiv 2203.13455)."""
    return energy.joint(out.float(), target)


def reinforced(out: Tensor, target: Tensor) -> Tensor:
    """f(x, ŷ) + LSE f(x, ·), climbed by reinforced conditional sampling, RCS (same source)."""
    return energy.joint(out.float(), target) + energy.marginal(out.float())


def divergence(out: Tensor, target: Tensor) -> Tensor:
    """KL(p(·|x₀) ‖ p(·|x)), climbed by TRADES' inner step (arXiv 1901.08573, its code).

    Args:
        out: N×K logits at x.
        target: N×K log-probabilities at the clean x₀.
    """
    return (target.exp() * (target - out.float().log_softmax(1))).sum(1)


class BatchEntropy:
    """−log mean_j exp f(x_i, x_j), climbed by MaxEnt (arXiv 2203.13455): N×D embeddings, no target.

    Its sum over the batch is highest when embeddings of length 1 lie as far apart as they can.
    """

    coupled = True

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature

    def __call__(self, out: Tensor, target: Tensor) -> Tensor:
        """Return one value a row; each depends on all rows."""
        z = out.float()
        return math.log(len(z)) - energy.marginal(similarity_logits(z, z, self.temperature))

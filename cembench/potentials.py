"""The scalar fields that attacks and samplers climb.

A potential reads the network's outputs and a target and gives one value a row. It climbs by its
gradient with respect to the image, so constants do not matter. Half precision ends here: values
are float32.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from cembench import energy

Potential = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(out: Tensor, target: Tensor) -> Tensor:
    """LSE f(x, ·) − f(x, y), climbed by PGD: N×K logits and N labels (arXiv 1706.06083)."""
    return -energy.conditional(out.float(), target)


def divergence(out: Tensor, target: Tensor) -> Tensor:
    """KL(p(·|x₀) ‖ p(·|x)), climbed by TRADES' inner step (arXiv 1901.08573, its code).

    Args:
        out: N×K logits at x.
        target: N×K log-probabilities at the clean x₀.
    """
    return (target.exp() * (target - out.float().log_softmax(1))).sum(1)

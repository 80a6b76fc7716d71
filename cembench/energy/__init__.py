"""Energies of a classifier: its logits f(x, y) as log p(x, y) + log Z (P-CEM, arXiv 2203.13455)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def joint(logits: Tensor, y: Tensor) -> Tensor:
    """Return f(x, y) = log p(x, y) + log Z per row: N×K logits and N labels to N values."""
    return logits.gather(1, y[:, None]).squeeze(1)


def marginal(logits: Tensor) -> Tensor:
    """Return LSE f(x, ·) = log p(x) + log Z per row; Z is unknown, so it is no likelihood."""
    return logits.logsumexp(1)


def consistency(logits: Tensor, negative: Tensor, y: Tensor) -> Tensor:
    """Return f(x, y) − f(x̂, y) per row: the consistency part of the likelihood (CEM)."""
    return joint(logits, y) - joint(negative, y)


def contrastive(negative: Tensor, y: Tensor, y_hat: Tensor) -> Tensor:
    """Return f(x̂, y) − f(x̂, ŷ) per row: the contrastive part; its mean over ŷ gives AT (CEM)."""
    return joint(negative, y) - joint(negative, y_hat)


def conditional(logits: Tensor, y: Tensor) -> Tensor:
    """Return log p(y|x) = f(x, y) − LSE f(x, ·) per row."""
    # Where logits are large, their difference in float32 would lose the gradient of f(x, y).
    return joint(logits.log_softmax(1), y)

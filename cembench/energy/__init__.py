"""Logits read as energies (CEM, arXiv 2203.13455, P-CEM): p(x, y) = exp f(x, y) / Z."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def joint(logits: Tensor, y: Tensor) -> Tensor:
    """Return f(x, y) = log p(x, y) + log Z a row: N×K logits and N labels to N values."""
    return logits.gather(1, y[:, None]).squeeze(1)


def marginal(logits: Tensor) -> Tensor:
    """Return LSE f(x, ·) = log p(x) + log Z a row; Z is unknown, so it is no likelihood."""
    return logits.logsumexp(1)


def consistency(logits: Tensor, away: Tensor, y: Tensor) -> Tensor:
    """Return f(x, y) − f(x̂, y) a row: the consistency part of the likelihood (CEM)."""
    return joint(logits, y) - joint(away, y)


def contrastive(away: Tensor, y: Tensor, y_hat: Tensor) -> Tensor:
    """Return f(x̂, y) − f(x̂, ŷ) a row: the contrastive part; averaged over ŷ it gives AT (CEM)."""
    return joint(away, y) - joint(away, y_hat)


def conditional(logits: Tensor, y: Tensor) -> Tensor:
    """Return log p(y|x) = f(x, y) − LSE f(x, ·) a row."""
    return joint(logits, y) - marginal(logits)

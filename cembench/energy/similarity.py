"""Similarity classifiers: images as the classes of each other, p(x, x′) ∝ exp(g(x)·g(x′)/τ).

An encoder g with a bank of images is a classifier whose classes are the images (NP-CEM, arXiv
2203.13455): its logits are f(x, x_j) = g(x)·g(x_j)/τ. So cross-entropy on them is InfoNCE, PGD is
the attack of adversarial contrastive learning, and ascent on LSE raises p(x), without more code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cembench.util.processes.collectives import place_of_rows, rows_of_all
from cembench.util.processes.distributed import World, world


class SimilarityClassifier(nn.Module):
    """An encoder as a classifier over the images of a bank.

    Args:
        encoder: images N×C×H×W to embeddings N×D of length 1.
        temperature: τ.
        bank: M×D embeddings.
        own: N×D embeddings, the image of each row; it comes first, as class 0.
    """

    def __init__(
        self, encoder: nn.Module, temperature: float, bank: Tensor, own: Tensor | None = None
    ) -> None:
        super().__init__()
        self.encoder, self.temperature, self.bank, self.own = encoder, temperature, bank, own

    def forward(self, x: Tensor) -> Tensor:
        """Return f(x, x_j), N×M, or N×(1 + M) with own images, in the precision of the bank."""
        z = self.encoder(x).to(self.bank.dtype)
        out = similarity_logits(z, self.bank, self.temperature)
        if self.own is None:
            return out
        return torch.cat([(z * self.own).sum(1, keepdim=True) / self.temperature, out], 1)


class Pairs(nn.Module):
    """Two views of N images, all first views before all second ones, as 2N classes of each other.

    The rows belong together: the logits of one depend on all, also on those of other processes.
    """

    def __init__(self, encoder: nn.Module, temperature: float) -> None:
        super().__init__()
        self.encoder, self.temperature = encoder, temperature

    def forward(self, x: Tensor) -> Tensor:
        """Return f(x_i, x_j), 2N×2N; −∞ where x_j is x_i, as a row is no class of itself."""
        return pair_logits(self.encoder(x), self.temperature)


def similarity_logits(z: Tensor, bank: Tensor, temperature: float) -> Tensor:
    """Return f = z·bank/τ for N×D and M×D embeddings, N×M, never in half precision."""
    with torch.autocast(z.device.type, enabled=False):
        return z @ bank.T / temperature


def pair_logits(z: Tensor, temperature: float, ranks: World | None = None) -> Tensor:
    """Return the 2N×2N logits of NT-Xent for embeddings of all first, then all second views.

    In several processes these are the rows of this one, and a column for each view of all.
    """
    z = z.float()
    every, place = rows_of_all(z, 2, ranks), place_of_rows(len(z), z.device, 2, ranks)
    same = place[:, None] == torch.arange(len(every), device=z.device)
    return similarity_logits(z, every, temperature).masked_fill(same, -torch.inf)


def partners(count: int, device: torch.device, ranks: World | None = None) -> Tensor:
    """Return the column of the other view of each row, for 2·count rows of this process."""
    every = 2 * count * (ranks or world()).size
    return (place_of_rows(2 * count, device, 2, ranks) + every // 2) % every

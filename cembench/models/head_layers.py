"""Layers of heads: a projector, and votes of neighbours."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize


class Projector(nn.Module):
    """Map from N×D features to embeddings g(x) of length 1."""

    def __init__(self, dimension: int, hidden: int, embedding: int) -> None:
        super().__init__()
        first, last = nn.Linear(dimension, hidden), nn.Linear(hidden, embedding)
        self.layers = nn.Sequential(first, nn.ReLU(), last)

    def forward(self, features: Tensor) -> Tensor:
        """Return the embeddings."""
        return normalize(self.layers(features).float())


class NeighbourVotes(nn.Module):
    """Votes of the nearest stored features, as differentiable logits.

    The logit of a class is log(exp(−1/τ) + Σ exp(s/τ)) over its features among the k nearest. It is
    never infinite, and softmax gives the weighted votes.
    """

    bank: Tensor
    labels: Tensor

    def __init__(self, dimension: int, classes: int, neighbours: int, temperature: float) -> None:
        super().__init__()
        self.classes, self.neighbours, self.temperature = classes, neighbours, temperature
        self.register_buffer("bank", torch.zeros(0, dimension))
        self.register_buffer("labels", torch.zeros(0, dtype=torch.long))

    def keep(self, features: Tensor, labels: Tensor) -> None:
        """Store N×D features and their N labels, instead of those stored before."""
        self.bank, self.labels = normalize(features.float()), labels

    def forward(self, features: Tensor) -> Tensor:
        """Return N×K logits, all equal while nothing is stored."""
        near = normalize(features.float()) @ self.bank.T / self.temperature
        votes, rows = near.topk(min(self.neighbours, near.shape[1]))
        floor = near.new_full((len(near), self.classes, 1), -1 / self.temperature)
        theirs = (
            self.labels[rows][:, None] == torch.arange(self.classes, device=near.device)[:, None]
        )
        counted = votes[:, None].masked_fill(~theirs, -torch.inf)
        return torch.cat([floor, counted], 2).logsumexp(2)

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Resize the buffers to the features of a checkpoint, then load them."""
        for name in ("bank", "labels"):
            found = state.get(f"{prefix}{name}")
            if isinstance(found, Tensor):
                setattr(self, name, torch.zeros_like(found, device=getattr(self, name).device))
        super()._load_from_state_dict(state, prefix, *rest)

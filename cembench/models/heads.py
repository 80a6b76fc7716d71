"""Heads by name: what replaces the last linear layer on a network's features."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from cembench.util.registry import Registry
from cembench.util.settings import Choice, Count, Positive


class Head(Choice):
    """Map from N×D features to logits, or to embeddings if it `encodes`."""

    encodes: ClassVar[bool] = False

    @abstractmethod
    def build(self, dimension: int, classes: int) -> nn.Module:
        """Return the layers from `dimension` features to `outputs(classes)` outputs."""

    @abstractmethod
    def outputs(self, classes: int) -> int:
        """Return the number of outputs."""


class Projection(Head):
    """SimCLR's projection head (arXiv 2002.05709): two linear layers, then length 1.

    Attributes:
        hidden: width of the hidden layer; that of the features unless given.
        dimension: length of an embedding.
    """

    name: ClassVar[str] = "projection"
    encodes: ClassVar[bool] = True
    hidden: Count | None = None
    dimension: Count = 128

    def build(self, dimension: int, classes: int) -> nn.Module:
        """Build the head; classes are not used."""
        return Projector(dimension, self.hidden or dimension, self.dimension)

    def outputs(self, classes: int) -> int:
        """Length of an embedding."""
        return self.dimension


class Projector(nn.Module):
    """Map from N×D features to embeddings g(x) of length 1."""

    def __init__(self, dimension: int, hidden: int, embedding: int) -> None:
        super().__init__()
        first, last = nn.Linear(dimension, hidden), nn.Linear(hidden, embedding)
        self.layers = nn.Sequential(first, nn.ReLU(), last)

    def forward(self, features: Tensor) -> Tensor:
        """Return the embeddings."""
        return normalize(self.layers(features).float())


class Neighbours(Head):
    """Weighted k-nearest neighbours among stored features (Wu et al., arXiv 1805.01978).

    Attributes:
        neighbours: k, the number of neighbours that vote.
        temperature: τ; a neighbour with cosine similarity s has the weight exp(s / τ).
    """

    name: ClassVar[str] = "knn"
    neighbours: Count = 20
    temperature: Positive = 0.1

    def build(self, dimension: int, classes: int) -> nn.Module:
        """Build the head, without stored features."""
        return NeighbourVotes(dimension, classes, self.neighbours, self.temperature)

    def outputs(self, classes: int) -> int:
        """One logit per class."""
        return classes


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


heads: Registry[Head] = Registry(
    "head",
    Head,
    {
        "projection": "cembench.models.heads:Projection",
        "knn": "cembench.models.heads:Neighbours",
    },
)

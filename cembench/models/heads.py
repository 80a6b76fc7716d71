"""Heads by name: what replaces the last linear layer on a network's features."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, ClassVar

from pydantic import Field

from cembench.util.lazy import lazy_imports
from cembench.util.registry import Registry
from cembench.util.settings import Choice, Positive

with lazy_imports():
    from torch import nn

    from cembench.models.head_layers import NeighbourVotes, Projector


Width = Annotated[int, Field(ge=1, le=65_536)]


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
    hidden: Width | None = None
    dimension: Width = 128

    def build(self, dimension: int, classes: int) -> nn.Module:
        """Build the head; classes are not used."""
        return Projector(dimension, self.hidden or dimension, self.dimension)

    def outputs(self, classes: int) -> int:
        """Length of an embedding."""
        return self.dimension


class Neighbours(Head):
    """Weighted k-nearest neighbours among stored features (Wu et al., arXiv 1805.01978).

    Attributes:
        neighbours: k, the number of neighbours that vote.
        temperature: τ; a neighbour with cosine similarity s has the weight exp(s / τ).
    """

    name: ClassVar[str] = "knn"
    neighbours: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    temperature: Positive = 0.1

    def build(self, dimension: int, classes: int) -> nn.Module:
        """Build the head, without stored features."""
        return NeighbourVotes(dimension, classes, self.neighbours, self.temperature)

    def outputs(self, classes: int) -> int:
        """One logit per class."""
        return classes


heads: Registry[Head] = Registry(
    "head",
    Head,
    {
        "projection": "cembench.models.heads:Projection",
        "knn": "cembench.models.heads:Neighbours",
    },
)

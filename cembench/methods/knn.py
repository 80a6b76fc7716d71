"""k-nearest neighbours on the features of a trained network: nothing is learned, only kept."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import SerializeAsAny
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from cembench.data.split import Split
from cembench.methods import Method
from cembench.models.classifier import Classifier
from cembench.models.heads import Head, Neighbours, NeighbourVotes, heads
from cembench.samplers import Scene
from cembench.util.errors import CembenchError, ModelError

BATCH = 256


class KNN(Method):
    """Keep the features of all training images; neighbours vote, by Wu et al. (arXiv 1805.01978).

    Attributes:
        votes: the head, with k and the temperature.
    """

    name: ClassVar[str] = "knn"
    trainable: ClassVar[bool] = False
    votes: Annotated[SerializeAsAny[Head], heads.field("knn")] = Neighbours()

    @property
    def head(self) -> Head:
        """The head that votes."""
        return self.votes

    @torch.no_grad()
    def fit(self, model: Classifier, data: Split) -> None:
        """Keep the features of a split.

        Raises:
            ModelError: when they are not finite.
        """
        model.eval()
        parts = torch.arange(len(data)).split(BATCH)
        features = torch.cat([model.features(data.pixels(rows)) for rows in parts])
        if not bool(features.isfinite().all()):
            raise ModelError("the network's features are not finite: no neighbours can be found")
        head = model.net.head
        if not isinstance(head, NeighbourVotes):
            raise CembenchError("method knn needs the head knn")
        head.keep(features, data.labels)

    def loss(
        self, model: nn.Module, x: Tensor, y: Tensor, scene: Scene
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the cross-entropy, which nothing minimises."""
        return cross_entropy(model(x), y), {}

    def cost(self, scene: Scene) -> int:
        """No gradients."""
        return 0

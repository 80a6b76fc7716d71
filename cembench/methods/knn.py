"""k-nearest neighbours on the features of a trained network; no weight is trained."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import SerializeAsAny

from cembench.methods import Method
from cembench.models.heads import Head, Neighbours, heads
from cembench.samplers import SamplerContext
from cembench.util.errors import CembenchError, ModelError
from cembench.util.lazy import lazy_imports

with lazy_imports():
    import torch
    from torch import Tensor, nn
    from torch.nn.functional import cross_entropy

    from cembench.data.split import Split
    from cembench.models.classifier import Classifier
    from cembench.models.head_layers import NeighbourVotes

BATCH = 256


class KNN(Method):
    """Store the features of all training images; the nearest vote (Wu et al., arXiv 1805.01978).

    Attributes:
        votes: head, with k and the temperature.

    Examples:
        The single nearest neighbour of a training image is that image:

        >>> from cembench.data.digits import Digits
        >>> from cembench.methods import methods
        >>> from cembench.models import models
        >>> from cembench.models.classifier import build_classifier
        >>> method = methods.parse({"name": "knn", "votes": {"neighbours": 1}})
        >>> model = build_classifier(models.parse("small_cnn"), (1, 8, 8), 10, head=method.head)
        >>> split = Digits().load("train")
        >>> method.fit(model, split)
        >>> bool((model(split.pixels()).argmax(1) == split.labels).all())
        True
    """

    name: ClassVar[str] = "knn"
    trainable: ClassVar[bool] = False
    votes: Annotated[SerializeAsAny[Head], heads.field("knn")] = Neighbours()

    @property
    def head(self) -> Head:
        """Head in which neighbours vote."""
        return self.votes

    def fit(self, model: Classifier, data: Split) -> None:
        """Store the features of the training images in the head.

        Raises:
            ModelError: when they are not finite.
        """
        model.eval()
        parts = torch.arange(len(data)).split(BATCH)
        with torch.no_grad():
            features = torch.cat([model.features(data.pixels(rows)) for rows in parts])
        if not bool(features.isfinite().all()):
            raise ModelError("the network's features are not finite: no neighbours can be found")
        head = model.net.head
        if not isinstance(head, NeighbourVotes):
            raise CembenchError("method knn needs the head knn")
        head.keep(features, data.labels)

    def loss(
        self, model: nn.Module, images: dict[str, Tensor], y: Tensor, context: SamplerContext
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the cross-entropy; it is not minimised."""
        return cross_entropy(model(images["x"]), y), {}

    def loss_cost(self, context: SamplerContext) -> int:
        """Gradient evaluations: none."""
        return 0

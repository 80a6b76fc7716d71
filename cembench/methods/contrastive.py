"""What methods without labels share: an encoder, two views of each image, NT-Xent.

The non-parametric half of CEM (arXiv 2203.13455): p(x, x′) ∝ exp(g(x)·g(x′)/τ). Every image is a
class of its own, so `cembench.energy.similarity` turns the encoder into a classifier, and samplers
for classifiers make negatives here too.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import SerializeAsAny
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from cembench.data.split import Split, subset
from cembench.data.views import Views
from cembench.energy.similarity import SimilarityClassifier, pair_logits, partners
from cembench.methods import Method
from cembench.models.heads import Head, Projection, heads
from cembench.samplers import Sampler
from cembench.util.frozen import frozen
from cembench.util.rng import derive, isolated_rng
from cembench.util.settings import LabelUse, Positive

MOST, NEIGHBOURS = 1000, 5


class Contrastive(Method):
    """A method that trains an encoder.

    Attributes:
        temperature: τ, which similarities are divided by.
        views: how the two views of an image differ.
        projection: the head that gives embeddings; probes put another in its place.
    """

    select: ClassVar[Literal["robust", "clean", "last"]] = "last"
    labels: ClassVar[LabelUse] = "none"
    min_batch_size: ClassVar[int] = 2
    supports_ddp: ClassVar[bool] = False
    temperature: Positive = 0.5
    views: Views = Views()
    projection: Annotated[SerializeAsAny[Head], heads.field("projection")] = Projection()

    @property
    def head(self) -> Head:
        """The projection head."""
        return self.projection

    def figures(self, model: nn.Module, held: Split, seed: int) -> dict[str, float]:
        """Return NT-Xent on views of at most `MOST` images, and how well neighbours read them.

        That second one takes labels: it is there to look at, and no epoch is chosen by it.
        """
        some = subset(held, MOST)[0]
        x = some.pixels()
        with frozen(model), torch.no_grad(), isolated_rng(derive(seed, "validation")):
            loss = nt_xent(model(torch.cat(self.views.pair(x))), self.temperature)
            z = model(x)
        found = {"val_infonce": float(loss)}
        return found | ({"val_knn_acc": neighbour_accuracy(z, some)} if len(some) > 1 else {})


def neighbour_accuracy(z: Tensor, split: Split) -> float:
    """Return the share of images whose nearest neighbours among the others vote for their label.

    Args:
        z: N×D embeddings of length 1.
        split: the images.
    """
    near = (z @ z.T).fill_diagonal_(-torch.inf).topk(min(NEIGHBOURS, len(z) - 1)).indices
    votes = one_hot(split.labels[near], len(split.classes)).sum(1)
    return float((votes.argmax(1) == split.labels).float().mean())


def nt_xent(z: Tensor, temperature: float) -> Tensor:
    """Return the mean NT-Xent loss (SimCLR, arXiv 2002.05709) of two views of N images.

    Each of the 2N embeddings has its partner to find among the 2N − 1 others. Memory is linear in N
    but for the 2N×2N logits, of which the gradient keeps nine bytes an entry.

    Args:
        z: 2N×D embeddings of length 1, those of the first views before those of the second.
        temperature: τ.
    """
    return cross_entropy(pair_logits(z, temperature), partners(len(z) // 2, z.device))


def beside(
    model: nn.Module, images: Tensor, temperature: float, sampler: Sampler
) -> SimilarityClassifier:
    """Return the classifier of these images, N×C×H×W, that a sampler climbs in its own mode."""
    with frozen(model, sampler.mode), torch.no_grad():
        return SimilarityClassifier(model, temperature, model(images).float())

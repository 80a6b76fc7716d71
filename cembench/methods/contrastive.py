"""Base of the methods without labels: an encoder, two views per image, and the NT-Xent loss.

The non-parametric half of CEM (arXiv 2203.13455): p(x, x′) ∝ exp(g(x)·g(x′)/τ). Every image is a
class, so `cembench.energy.similarity` turns the encoder into a classifier, and the samplers for
classifiers make its negatives.
"""

from __future__ import annotations

from math import prod
from typing import Annotated, ClassVar, Literal

from pydantic import SerializeAsAny

from cembench.data.views import Views
from cembench.methods import Method
from cembench.models.heads import Head, Projection, heads
from cembench.samplers import Sampler
from cembench.util.lazy import lazy_imports
from cembench.util.settings import LabelUse, Positive

with lazy_imports():
    import torch
    from torch import Tensor, nn
    from torch.nn.functional import cross_entropy, one_hot

    from cembench.data.split import Split, subset
    from cembench.energy.similarity import SimilarityClassifier, pair_logits, partners
    from cembench.util.frozen import frozen
    from cembench.util.processes.collectives import rows_of_all
    from cembench.util.processes.distributed import ALONE, World
    from cembench.util.rng import derive, isolated_rng

MAX_IMAGES, MAX_BYTES, NEIGHBOURS = 1000, 16 * 10**6, 5


class Contrastive(Method):
    """Method that trains an encoder.

    Attributes:
        temperature: τ, which similarities are divided by.
        views: augmentations that make the two views of an image.
        projection: head that gives embeddings; probes replace it.
    """

    select: ClassVar[Literal["robust", "clean", "last"]] = "last"
    labels: ClassVar[LabelUse] = "none"
    min_batch_size: ClassVar[int] = 2
    temperature: Positive = 0.5
    views: Views = Views()
    projection: Annotated[SerializeAsAny[Head], heads.field("projection")] = Projection()

    @property
    def head(self) -> Head:
        """The projection head."""
        return self.projection

    def validation_metrics(self, model: nn.Module, held: Split, seed: int) -> dict[str, float]:
        """Return NT-Xent and nearest-neighbour accuracy on at most `MAX_IMAGES` images.

        Of large images fewer, so that they take at most `MAX_BYTES`, but a hundred.
        The accuracy uses labels; it is only logged, and no epoch is selected by it.
        """
        large = max(100, MAX_BYTES // prod(held.shape))
        some = subset(held, min(MAX_IMAGES, large))[0]
        x = some.pixels()
        with frozen(model), torch.no_grad(), isolated_rng(derive(seed, "validation")):
            loss = nt_xent(model(torch.cat(self.views.pair(x))), self.temperature, ALONE)
            z = model(x)
        found = {"val_infonce": float(loss)}
        return found | ({"val_knn_acc": neighbour_accuracy(z, some)} if len(some) > 1 else {})


def neighbour_accuracy(z: Tensor, split: Split) -> float:
    """Return the leave-one-out accuracy of a vote of the nearest neighbours.

    Args:
        z: embeddings of length 1, N×D.
        split: the images, with labels.
    """
    near = (z @ z.T).fill_diagonal_(-torch.inf).topk(min(NEIGHBOURS, len(z) - 1)).indices
    votes = one_hot(split.labels[near], len(split.classes)).sum(1)
    return float((votes.argmax(1) == split.labels).float().mean())


def nt_xent(z: Tensor, temperature: float, ranks: World | None = None) -> Tensor:
    """Return the mean NT-Xent loss (SimCLR, arXiv 2002.05709) of two views of N images.

    Each of the 2N embeddings has to find its partner among the 2N − 1 others, which may be in other
    processes: there it is the mean over the rows of this one. Memory is linear in N
    except for the 2N×2N logits, of which autograd keeps nine bytes per entry.

    Args:
        z: embeddings of length 1, 2N×D, those of the first views before those of the second.
        temperature: τ.
        ranks: processes whose images are compared with each other, all of them unless given.
    """
    target = partners(len(z) // 2, z.device, ranks)
    return cross_entropy(pair_logits(z, temperature, ranks), target)


def bank_classifier(
    model: nn.Module, images: Tensor, temperature: float, sampler: Sampler
) -> SimilarityClassifier:
    """Return the classifier whose classes are these images, N×C×H×W, for a sampler's ascent.

    The bank is computed in the mode of the sampler, and holds the images of all processes.
    """
    with frozen(model, getattr(sampler, "mode", "eval")), torch.no_grad():
        return SimilarityClassifier(model, temperature, rows_of_all(model(images).float()))

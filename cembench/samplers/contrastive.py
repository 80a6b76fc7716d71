"""Samplers of embeddings, which need no classes: MaxEnt, and InfoNCE toward a given image.

Source: CEM (arXiv 2203.13455), the non-parametric half. On an encoder they climb its embeddings, on
a classifier its features scaled to length 1.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from cembench import energy, potentials
from cembench.contrast import Likeness
from cembench.models.classifier import Classifier
from cembench.potentials import BatchEntropy
from cembench.samplers import Scene
from cembench.samplers.energy import EnergySampler, Landscape
from cembench.settings import Count, Positive

Unlabelled = Literal["pooled", "cluster", "noise", "data", "outside"]


class EmbeddingSampler(EnergySampler):
    """Climbs what embeddings say.

    Attributes:
        temperature: τ of f(x, x′) = g(x)·g(x′)/τ.
    """

    start: Unlabelled = "pooled"
    temperature: Positive = 0.5


class MaxEnt(EmbeddingSampler):
    """Ascends the entropy of the batch, −Σ_i log mean_j exp f(x_i, x_j): no two samples alike.

    Chains drawn together push each other apart, so samples depend on how many are.
    """

    name: ClassVar[str] = "maxent"
    reads: ClassVar[Literal["logits", "images", "nothing"]] = "nothing"

    def landscape(self, model: nn.Module, y: Tensor, scene: Scene) -> Landscape:
        """Return the embeddings and their entropy; labels play no part."""
        assert isinstance(model, Classifier)
        return model.encoder, BatchEntropy(self.temperature), y

    def readings(self, out: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Return each image's share of the entropy of the batch."""
        return {"batch entropy": BatchEntropy(self.temperature)(out, y)}


class InfoNCE(EmbeddingSampler):
    """Climbs log p(x′|x): makes images that are taken for a given training image, not for others.

    Attributes:
        image: the number of that image; for each sample a random one of its class unless given.
        others: random training images that x′ is told from.
    """

    name: ClassVar[str] = "infonce"
    reads: ClassVar[Literal["logits", "images", "nothing"]] = "images"
    image: Annotated[int, Field(ge=0)] | None = None
    others: Count = 64

    def landscape(self, model: nn.Module, y: Tensor, scene: Scene) -> Landscape:
        """Return how much images are like theirs (class 0) and like others.

        Args:
            model: a network, frozen.
            y: the numbers of the training images to go for, N.
            scene: has the training images.
        """
        assert isinstance(model, Classifier) and scene.data is not None
        encoder, data = model.encoder, scene.data
        drawn = (len(data), (self.others,))
        others = torch.randint(*drawn, generator=scene.generator, device=y.device)
        with torch.no_grad():
            bank, own = encoder(data.pixels(others)), encoder(data.pixels(y))
        return (
            Likeness(encoder, self.temperature, bank, own),
            potentials.conditional,
            torch.zeros_like(y),
        )

    def readings(self, out: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Return log p(x), and log p(x′|x) of the image that is gone for."""
        log_p = {"log p(x'|x)": energy.conditional(out, torch.zeros_like(y))}
        return {"log p(x) + const": energy.marginal(out), **log_p}

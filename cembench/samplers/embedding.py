"""Samplers of embeddings, which need no classes: MaxEnt, InfoNCE toward an image, and SGLD.

Source: CEM (arXiv 2203.13455), the non-parametric half. On an encoder they climb its embeddings, on
a classifier its features scaled to length 1.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from cembench import energy
from cembench.data.split import Split
from cembench.energy import potentials
from cembench.energy.potentials import BatchEntropy
from cembench.energy.similarity import SimilarityClassifier
from cembench.samplers import Scene
from cembench.samplers.energy import EnergySampler, Landscape
from cembench.util.rng import integers
from cembench.util.settings import Count, Positive

Unlabelled = Literal["pooled", "cluster", "noise", "data", "buffer", "outside"]


class EmbeddingSampler(EnergySampler):
    """Climbs what embeddings say.

    By default a step from seeds changes a pixel by 1/400 (RMS), which validation images of the
    digits preferred for all networks together.

    Attributes:
        temperature: τ of f(x, x′) = g(x)·g(x′)/τ.
    """

    change: ClassVar[float] = 1 / 400
    start: Unlabelled = "pooled"
    temperature: Positive = 0.5

    def begin(self, x: Tensor, y: Tensor, scene: Scene) -> tuple[Tensor, Tensor | None]:
        """Return starts, and their places if they come from the buffer, of any class."""
        if scene.buffer is not None:
            classes = len(scene.buffer.images) // scene.buffer.places
            y = integers(classes, y.shape, scene.generator)
        return super().begin(x, y, scene)


class MaxEnt(EmbeddingSampler):
    """Ascends the entropy of the batch, −Σ_i log mean_j exp f(x_i, x_j): no two samples alike.

    Chains drawn together push each other apart, so samples depend on how many are.
    """

    name: ClassVar[str] = "maxent"
    reads: ClassVar[Literal["logits", "images", "nothing"]] = "nothing"
    coupled: ClassVar[bool] = True
    temperature: Positive = 2.0

    def landscape(self, model: nn.Module, y: Tensor, scene: Scene) -> Landscape:
        """Return the embeddings and their entropy; labels play no part."""
        return encoder_of(model), BatchEntropy(self.temperature), y

    def readings(self, out: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Return each image's share of the entropy of the batch."""
        return {"batch entropy": BatchEntropy(self.temperature)(out, y)}


class BankSampler(EmbeddingSampler):
    """Climbs what embeddings say beside those of training images.

    Attributes:
        others: how many random ones.
    """

    others: Count = 64

    def bank(self, encoder: nn.Module, scene: Scene) -> Tensor:
        """Return their embeddings, M×D."""
        assert scene.data is not None
        device = scene.generator.device
        rows = (len(scene.data), (self.others,))
        drawn = torch.randint(*rows, generator=scene.generator, device=device)
        return embedded(encoder, scene.data, drawn)


class InfoNCE(BankSampler):
    """Climbs log p(x′|x): makes images that are taken for a given training image, not for others.

    Labels play no part but to say afterwards which class was gone for.

    Attributes:
        image: the number of that image; a random one for each sample unless given.
        others: random training images that x′ is told from; it may be one of them.
    """

    name: ClassVar[str] = "infonce"
    reads: ClassVar[Literal["logits", "images", "nothing"]] = "images"
    image: Annotated[int, Field(ge=0)] | None = None

    def landscape(self, model: nn.Module, y: Tensor, scene: Scene) -> Landscape:
        """Return how much images are like theirs (class 0) and like others.

        Args:
            model: a network, frozen.
            y: the numbers of the training images to go for, N.
            scene: has the training images.
        """
        assert scene.data is not None
        encoder = encoder_of(model)
        bank, own = self.bank(encoder, scene), embedded(encoder, scene.data, y)
        beside = SimilarityClassifier(encoder, self.temperature, bank, own)
        return beside, potentials.conditional, torch.zeros_like(y)

    def readings(self, out: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Return log p(x), and log p(x′|x) of the image that is gone for."""
        log_p = {"log p(x'|x)": energy.conditional(out, torch.zeros_like(y))}
        return {"log p(x) + const": energy.marginal(out), **log_p}


class NPSGLD(BankSampler):
    """Climbs log p(x) = log mean_j exp f(x, x_j) over training images: SGLD without labels.

    What `np-jem` trains with; `start: buffer` goes on where its training stopped.
    """

    name: ClassVar[str] = "np-sgld"
    reads: ClassVar[Literal["logits", "images", "nothing"]] = "nothing"

    def landscape(self, model: nn.Module, y: Tensor, scene: Scene) -> Landscape:
        """Return how much images are like training images, all together."""
        encoder = encoder_of(model)
        beside = SimilarityClassifier(encoder, self.temperature, self.bank(encoder, scene))
        return beside, potentials.marginal, y

    def readings(self, out: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Return log p(x)."""
        return {"log p(x) + const": energy.marginal(out)}


def encoder_of(model: nn.Module) -> nn.Module:
    """Return images to embeddings of length 1, which every classifier has."""
    encoder = model.encoder
    assert isinstance(encoder, nn.Module)
    return encoder


@torch.no_grad()
def embedded(encoder: nn.Module, data: Split, rows: Tensor) -> Tensor:
    """Return the embeddings of chosen images, N×D."""
    return encoder(data.pixels(rows)).float()

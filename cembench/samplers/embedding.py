"""Embedding samplers, which need no classes: MaxEnt, InfoNCE toward an image, and NP-SGLD.

Source: the non-parametric half of CEM (arXiv 2203.13455). They use the embeddings of an encoder, or
the features of a classifier scaled to length 1.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cembench import energy
from cembench.energy import potentials
from cembench.energy.potentials import BatchEntropy
from cembench.samplers import Needs, SamplerContext, TargetType
from cembench.samplers.energy import EnergySampler, Objective
from cembench.util.lazy import lazy_imports
from cembench.util.settings import Count, Positive

with lazy_imports():
    import torch
    from torch import Tensor, nn

    from cembench.data.split import Split
    from cembench.energy.similarity import SimilarityClassifier
    from cembench.util.rng import integers

Unlabelled = Literal["pooled", "cluster", "noise", "data", "buffer", "outside"]


class EmbeddingSampler(EnergySampler):
    """Gradient ascent of a function of embeddings.

    By default the RMS change of a pixel per step is 1/400 from Gaussians, which was the best on
    validation images of the digits for all networks together.

    Attributes:
        temperature: τ of f(x, x′) = g(x)·g(x′)/τ.
    """

    rms_change: ClassVar[float] = 1 / 400
    start: Unlabelled = "pooled"
    temperature: Positive = 0.5

    def initial_images(
        self, x: Tensor, y: Tensor, context: SamplerContext
    ) -> tuple[Tensor, Tensor | None]:
        """Return initial images, of any class if from the buffer, and their rows there."""
        buffer = context.initial.buffer
        if buffer is not None:
            y = integers(buffer.classes, y.shape, context.generator)
        return super().initial_images(x, y, context)


class MaxEnt(EmbeddingSampler):
    """Ascent of the entropy of the batch, −Σ_i log mean_j exp f(x_i, x_j): samples that differ.

    The chains of a batch repel each other, so samples depend on the batch size.

    Examples:
        Embeddings of samples are less alike than those of their initial images:

        >>> import torch
        >>> from cembench.data.digits import Digits
        >>> from cembench.models import models
        >>> from cembench.models.classifier import build_classifier
        >>> from cembench.samplers import SamplerContext, samplers
        >>> model = build_classifier(models.parse("small_cnn"), (1, 8, 8), 10).eval()
        >>> digits = Digits()
        >>> context = SamplerContext(digits.threat, torch.Generator())
        >>> x = digits.load("train").pixels(slice(8))
        >>> sampler = samplers.parse({"name": "maxent", "start": "data"})
        >>> samples = sampler.draw(model, x, torch.zeros(8, dtype=torch.long), context)
        >>> before, after = (model.encoder(images) for images in (x, samples))
        >>> bool((after @ after.T).mean() < (before @ before.T).mean())
        True
    """

    name: ClassVar[str] = "maxent"
    target_type: ClassVar[TargetType] = "none"
    coupled: ClassVar[bool] = True
    temperature: Positive = 2.0

    def objective(self, model: nn.Module, y: Tensor, context: SamplerContext) -> Objective:
        """Return the embeddings and their entropy; labels are not used."""
        return encoder_of(model), BatchEntropy(self.temperature), y

    def readings(self, out: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Return each image's part of the entropy of the batch."""
        return {"batch entropy": BatchEntropy(self.temperature)(out, y)}


class BankSampler(EmbeddingSampler):
    """Sampler that compares embeddings with those of a bank of training images.

    Attributes:
        others: size of the bank; its images are random.
    """

    others: Annotated[Count, Field(le=1_000_000)] = 64

    def needs(self) -> Needs:
        """Return the same as other energy samplers, and a bank of training images."""
        return replace(super().needs(), bank_size=self.others)

    def bank(self, encoder: nn.Module, context: SamplerContext) -> Tensor:
        """Return the embeddings of the bank, M×D."""
        training, generator = context.initial.training, context.generator
        assert training is not None
        rows = torch.randint(
            len(training), (self.others,), generator=generator, device=generator.device
        )
        return embed(encoder, training, rows)


class InfoNCE(BankSampler):
    """Ascent of log p(x′|x): images whose embedding is that of a training image x′, not of others.

    Labels are not used; the class of x′ is recorded as the intended class of the sample.

    Attributes:
        image: row of the training image x′; a random one for each sample unless given.
        others: random training images that x′ is told from; it may be one of them.

    Examples:
        From noise toward training image 7, whose row is the target:

        >>> import torch
        >>> from cembench.data.digits import Digits
        >>> from cembench.models import models
        >>> from cembench.models.classifier import build_classifier
        >>> from cembench.samplers import InitialImages, SamplerContext, samplers
        >>> model = build_classifier(models.parse("small_cnn"), (1, 8, 8), 10).eval()
        >>> digits = Digits()
        >>> initial = InitialImages(training=digits.load("train"))
        >>> context = SamplerContext(digits.threat, torch.Generator(), initial)
        >>> sampler = samplers.parse({"name": "infonce", "start": "noise"})
        >>> target = torch.tensor([7, 7])
        >>> x = initial.training.pixels(target)
        >>> samples = sampler.draw(model, x, target, context)
        >>> noise = torch.rand(2, 1, 8, 8)
        >>> before, after = ((model.encoder(z) * model.encoder(x)).sum(1) for z in (noise, samples))
        >>> bool((after > before).all())
        True
    """

    name: ClassVar[str] = "infonce"
    target_type: ClassVar[TargetType] = "image"
    image: Annotated[int, Field(ge=0)] | None = None

    def needs(self) -> Needs:
        """Return the needs of a sampler with a bank, and the one image to approach, if given."""
        return replace(super().needs(), image=self.image)

    def objective(self, model: nn.Module, y: Tensor, context: SamplerContext) -> Objective:
        """Return similarities to the target image (class 0) and to the bank.

        Args:
            model: a frozen network.
            y: rows of the target images among the training images, N.
            context: has the training images.
        """
        training = context.initial.training
        assert training is not None
        encoder = encoder_of(model)
        bank, own = self.bank(encoder, context), embed(encoder, training, y)
        classifier = SimilarityClassifier(encoder, self.temperature, bank, own)
        return classifier, potentials.conditional, torch.zeros_like(y)

    def readings(self, out: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Return log p(x) up to a constant, and log p(x′|x) of the target image."""
        log_p = {"log p(x'|x)": energy.conditional(out, torch.zeros_like(y))}
        return {"log p(x) + const": energy.marginal(out), **log_p}


class NPSGLD(BankSampler):
    """Ascent of log p(x) = log mean_j exp f(x, x_j) over training images: SGLD without labels.

    The sampler that `np-jem` trains with; `start: buffer` continues the chains of that training.

    Examples:
        Samples are more like training images than the noise that they start from:

        >>> import torch
        >>> from cembench.data.digits import Digits
        >>> from cembench.models import models
        >>> from cembench.models.classifier import build_classifier
        >>> from cembench.samplers import InitialImages, SamplerContext, samplers
        >>> model = build_classifier(models.parse("small_cnn"), (1, 8, 8), 10).eval()
        >>> digits = Digits()
        >>> initial = InitialImages(training=digits.load("train"))
        >>> context = SamplerContext(digits.threat, torch.Generator(), initial)
        >>> sampler = samplers.parse({"name": "np-sgld", "start": "noise"})
        >>> samples = sampler.draw(model, torch.zeros(4, 1, 8, 8), torch.zeros(4).long(), context)
        >>> bank = model.encoder(initial.training.pixels(slice(64)))
        >>> noise = torch.rand(4, 1, 8, 8)
        >>> before, after = ((model.encoder(z) @ bank.T).mean() for z in (noise, samples))
        >>> bool(after > before)
        True
    """

    name: ClassVar[str] = "np-sgld"
    target_type: ClassVar[TargetType] = "none"

    def objective(self, model: nn.Module, y: Tensor, context: SamplerContext) -> Objective:
        """Return similarities to the bank and their LSE; labels are not used."""
        encoder = encoder_of(model)
        classifier = SimilarityClassifier(encoder, self.temperature, self.bank(encoder, context))
        return classifier, potentials.marginal, y

    def readings(self, out: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Return log p(x) up to a constant."""
        return {"log p(x) + const": energy.marginal(out)}


def encoder_of(model: nn.Module) -> nn.Module:
    """Return the map from images to embeddings of length 1, which every classifier has."""
    encoder = model.encoder
    assert isinstance(encoder, nn.Module)
    return encoder


def embed(encoder: nn.Module, data: Split, rows: Tensor) -> Tensor:
    """Return the embeddings of these rows of a split, N×D."""
    with torch.no_grad():
        return encoder(data.pixels(rows)).float()

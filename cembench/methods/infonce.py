"""SimCLR (Chen et al., arXiv 2002.05709): InfoNCE on two views of each image.

CEM (arXiv 2203.13455): the gradient of InfoNCE is that of the likelihood of p(x, x′), with
importance-weighted data in place of samples of the model.
"""

from __future__ import annotations

from typing import ClassVar

from cembench.methods.contrastive import Contrastive, nt_xent
from cembench.samplers import SamplerContext
from cembench.util.lazy import lazy_imports

with lazy_imports():
    import torch
    from torch import Tensor, nn


class InfoNCE(Contrastive):
    """Minimise NT-Xent. Both views go through the encoder as one batch.

    Examples:
        The network is an encoder: the projection head gives embeddings of length 1.

        >>> import torch
        >>> from cembench.energy.threat import Threat
        >>> from cembench.methods import methods
        >>> from cembench.models import models
        >>> from cembench.models.classifier import build_classifier
        >>> from cembench.samplers import SamplerContext
        >>> x, y = torch.rand(4, 1, 8, 8), torch.zeros(4, dtype=torch.long)
        >>> context = SamplerContext(Threat(norm="linf", eps=0.1), torch.Generator())
        >>> method = methods.parse({"name": "infonce", "temperature": 0.2})
        >>> model = build_classifier(models.parse("small_cnn"), (1, 8, 8), 10, head=method.head)
        >>> loss, _ = method.objective(model, x, y, context)
        >>> bool(loss > 0), model(x).shape, method.cost(context)
        (True, torch.Size([4, 128]), 2)
    """

    name: ClassVar[str] = "infonce"

    def draw(
        self, model: nn.Module, x: Tensor, y: Tensor, context: SamplerContext
    ) -> dict[str, Tensor]:
        """Return both views of all images, `views`, 2N×C×H×W."""
        return {"views": torch.cat(self.views.pair(x, context.generator))}

    def loss(
        self, model: nn.Module, images: dict[str, Tensor], y: Tensor, context: SamplerContext
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss; labels are not used."""
        return nt_xent(model(images["views"]), self.temperature), {}

    def loss_cost(self, context: SamplerContext) -> int:
        """Gradient of the weights on two views."""
        return 2

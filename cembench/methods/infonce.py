"""SimCLR (Chen et al., arXiv 2002.05709): InfoNCE on two views of each image.

CEM (arXiv 2203.13455): the gradient of InfoNCE is that of the likelihood of p(x, x′), with
importance-weighted data in place of samples of the model.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from cembench.methods.contrastive import Contrastive, nt_xent
from cembench.samplers import SamplerContext


class InfoNCE(Contrastive):
    """Minimise NT-Xent. Both views go through the encoder as one batch."""

    name: ClassVar[str] = "infonce"

    def loss(
        self, model: nn.Module, x: Tensor, y: Tensor, context: SamplerContext
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss; labels are not used."""
        return nt_xent(model(torch.cat(self.views.pair(x))), self.temperature), {}

    def cost(self, context: SamplerContext) -> int:
        """Gradient of the weights on two views."""
        return 2

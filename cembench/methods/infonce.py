"""SimCLR (Chen et al., arXiv 2002.05709): InfoNCE on two views of each image.

CEM (arXiv 2203.13455): the gradient of InfoNCE is that of the likelihood of p(x, x′), with the data
in place of samples of the model, importance-weighted.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from cembench.methods.contrastive import Contrastive, nt_xent
from cembench.samplers import Scene


class InfoNCE(Contrastive):
    """Minimise NT-Xent: both views through the encoder as one batch."""

    name: ClassVar[str] = "infonce"

    def loss(
        self, model: nn.Module, x: Tensor, y: Tensor, scene: Scene
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss; labels play no part."""
        return nt_xent(model(torch.cat(self.views.pair(x))), self.temperature), {}

    def cost(self, scene: Scene) -> int:
        """The weights' gradient through two views."""
        return 2

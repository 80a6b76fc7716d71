"""Standard training: cross-entropy on the data."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from cembench.methods import Supervised
from cembench.samplers import SamplerContext


class Standard(Supervised):
    """Minimise CE(x, y)."""

    name: ClassVar[str] = "standard"

    def loss(
        self, model: nn.Module, x: Tensor, y: Tensor, context: SamplerContext
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the cross-entropy."""
        return cross_entropy(model(x), y, label_smoothing=self.label_smoothing), {}

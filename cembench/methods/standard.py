"""Standard training: cross-entropy on the data."""

from __future__ import annotations

from typing import ClassVar

from cembench.methods import Supervised
from cembench.samplers import SamplerContext
from cembench.util.lazy import lazy_imports

with lazy_imports():
    from torch import Tensor, nn
    from torch.nn.functional import cross_entropy


class Standard(Supervised):
    """Minimise CE(x, y).

    Examples:
        One gradient of the weights per image:

        >>> import torch
        >>> from cembench.energy.threat import Threat
        >>> from cembench.methods import methods
        >>> from cembench.samplers import SamplerContext
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
        >>> x, y = torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])
        >>> context = SamplerContext(Threat(norm="linf", eps=0.1), torch.Generator())
        >>> method = methods.parse("standard")
        >>> loss, _ = method.objective(model, x, y, context)
        >>> torch.equal(loss, torch.nn.functional.cross_entropy(model(x), y))
        True
        >>> method.cost(context)
        1
    """

    name: ClassVar[str] = "standard"

    def loss(
        self, model: nn.Module, images: dict[str, Tensor], y: Tensor, context: SamplerContext
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the cross-entropy."""
        return cross_entropy(model(images["x"]), y, label_smoothing=self.label_smoothing), {}

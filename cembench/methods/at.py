"""Adversarial training (Madry et al., arXiv 1706.06083): cross-entropy on perturbed images.

CEM (arXiv 2203.13455): for negatives x̂ drawn from the model, the gradient of CE(x̂, y) is the
contrastive part of the gradient of log p(x, y).
"""

from __future__ import annotations

from typing import ClassVar

from cembench.methods.adversarial import Adversarial
from cembench.samplers import SamplerContext
from cembench.util.lazy import lazy_imports

with lazy_imports():
    from torch import Tensor, nn
    from torch.nn.functional import cross_entropy


class AT(Adversarial):
    """Minimise CE(x̂, y). PGD with one step from a uniform start is Fast-AT (arXiv 2001.03994).

    Examples:
        The loss on attacked images, for two steps of PGD and one gradient of the weights:

        >>> import torch
        >>> from cembench.energy.threat import Threat
        >>> from cembench.methods import methods
        >>> from cembench.samplers import SamplerContext
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
        >>> x, y = torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])
        >>> context = SamplerContext(Threat(norm="linf", eps=0.1), torch.Generator())
        >>> method = methods.parse({"name": "at", "negatives": {"name": "pgd", "steps": 2}})
        >>> loss, _ = method.objective(model, x, y, context)
        >>> bool(loss > torch.nn.functional.cross_entropy(model(x), y))
        True
        >>> method.cost(context)
        3
    """

    name: ClassVar[str] = "at"

    def loss(
        self, model: nn.Module, images: dict[str, Tensor], y: Tensor, context: SamplerContext
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the cross-entropy on the negatives."""
        logits = model(images["attacked"])
        return cross_entropy(logits, y, label_smoothing=self.label_smoothing), {}

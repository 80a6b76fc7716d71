"""JEM without labels: the likelihood of the non-parametric CEM (arXiv 2203.13455).

log p(x, x′) = log p(x′|x) + log p(x), where log p(x) = log mean_j exp f(x, x′_j) up to a constant.
InfoNCE maximises the first term alone; NP-JEM maximises both, with samples of the model.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import SerializeAsAny

from cembench import energy
from cembench.methods.contrastive import Contrastive, bank_classifier
from cembench.samplers import Sampler, SamplerContext, samplers
from cembench.samplers.logits import SGLD
from cembench.util.lazy import lazy_imports
from cembench.util.settings import NonNegative

with lazy_imports():
    import torch
    from torch import Tensor, nn
    from torch.nn.functional import cross_entropy

    from cembench.energy.similarity import similarity_logits
    from cembench.util.processes.collectives import place_of_rows, rows_of_all


class NPJEM(Contrastive):
    """Minimise InfoNCE(x, x′) − γ·(LSE f(x, ·) − LSE f(x̂, ·)) over the second views x′.

    γ = 0 is InfoNCE; at γ = 1 LSE f(x, ·) cancels, and the gradient is that of the likelihood.

    Attributes:
        gamma: γ, the weight of log p(x).
        negatives: sampler of x̂: `sgld` ascends LSE f(x, ·), `pgd` is the attack on InfoNCE.

    Examples:
        InfoNCE and energies are logged:

        >>> import torch
        >>> from cembench.energy.threat import Threat
        >>> from cembench.methods import methods
        >>> from cembench.models import models
        >>> from cembench.models.classifier import build_classifier
        >>> from cembench.samplers import SamplerContext
        >>> x, y = torch.rand(4, 1, 8, 8), torch.zeros(4, dtype=torch.long)
        >>> context = SamplerContext(Threat(norm="linf", eps=0.1), torch.Generator())
        >>> method = methods.parse({"name": "np-jem", "negatives": {"name": "pgd", "steps": 2}})
        >>> model = build_classifier(models.parse("small_cnn"), (1, 8, 8), 10, head=method.head)
        >>> loss, parts = method.objective(model, x, y, context)
        >>> torch.allclose(loss, parts["infonce"] + parts["lse_negatives"] - parts["lse_data"])
        True
    """

    name: ClassVar[str] = "np-jem"
    on_divergence: ClassVar[Literal["stop", "rollback"]] = "rollback"
    gamma: NonNegative = 1.0
    negatives: Annotated[SerializeAsAny[Sampler], samplers.field("sgld")] = SGLD()

    def draw(
        self, model: nn.Module, x: Tensor, y: Tensor, context: SamplerContext
    ) -> dict[str, Tensor]:
        """Return both views, `first` and `second`, and x̂, `sampled`."""
        first, second = self.views.pair(x, context.generator)
        target = place_of_rows(len(x), x.device)
        classifier = bank_classifier(model, second, self.temperature, self.negatives)
        sampled = self.negatives.draw(classifier, first, torch.zeros_like(target), context, target)
        return {"first": first, "second": second, "sampled": sampled}

    def loss(
        self, model: nn.Module, images: dict[str, Tensor], y: Tensor, context: SamplerContext
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, and InfoNCE and both mean energies."""
        every = torch.cat([images["first"], images["second"], images["sampled"]])
        z, bank, away = model(every).float().chunk(3)
        bank, own = rows_of_all(bank), place_of_rows(len(z), z.device)
        logits = similarity_logits(z, bank, self.temperature)
        natural = cross_entropy(logits, own)
        data = energy.marginal(logits).mean()
        sampled = energy.marginal(similarity_logits(away, bank, self.temperature)).mean()
        return natural + self.gamma * (sampled - data), {
            "infonce": natural.detach(),
            "lse_data": data.detach(),
            "lse_negatives": sampled.detach(),
        }

    def loss_cost(self, context: SamplerContext) -> int:
        """Gradients of the weights on three batches."""
        return 3

"""MART (Wang et al., ICLR 2020): adversarial training that looks at misclassified images."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import SerializeAsAny

from cembench.energy import potentials
from cembench.methods.adversarial import Adversarial
from cembench.samplers import Sampler, SamplerContext, samplers
from cembench.samplers.pgd import PGD
from cembench.util.lazy import lazy_imports
from cembench.util.settings import NonNegative

with lazy_imports():
    from torch import Tensor, nn
    from torch.nn.functional import cross_entropy

CERTAIN = 1.0001  # of which a probability is subtracted before its logarithm; 1 in the paper


class MART(Adversarial):
    """Minimise BCE(x̂, y) + β·mean (1 − p(y|x))·KL(p(·|x) ‖ p(·|x̂)).

    BCE(x̂, y) = −log p(y|x̂) − log(1 − max_{k≠y} p(k|x̂)) is the boosted cross-entropy, with 1.0001 in
    place of the 1, as in the code (YisenWang/MART), where the gradient also goes through p(·|x).
    The paper calls β λ. Label smoothing is that of −log p(y|x̂) alone.

    Attributes:
        beta: β; the code has 5 for a ResNet-18 and 6 for a WideResNet-34-10.
        negatives: sampler of x̂; `pgd` starts at x plus noise unless the settings name it.

    Examples:
        Without β it is the boosted cross-entropy, which is more than cross-entropy:

        >>> import torch
        >>> from cembench.energy.threat import Threat
        >>> from cembench.methods import methods
        >>> from cembench.samplers import SamplerContext
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
        >>> x, y = torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])
        >>> context = SamplerContext(Threat(norm="linf", eps=0.1), torch.Generator())
        >>> loss, parts = methods.parse({"name": "mart", "beta": 0}).objective(model, x, y, context)
        >>> bool(loss == parts["boosted"]), bool(loss > torch.nn.CrossEntropyLoss()(model(x), y))
        (True, True)
        >>> methods.parse("mart").cost(context)
        12
    """

    name: ClassVar[str] = "mart"
    beta: NonNegative = 5.0
    negatives: Annotated[
        SerializeAsAny[Sampler], samplers.field("pgd", given={"start": "normal"})
    ] = PGD(start="normal")

    def loss(
        self, model: nn.Module, images: dict[str, Tensor], y: Tensor, context: SamplerContext
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, and its two terms."""
        logits, away = model(images["x"]).float(), model(images["attacked"]).float()
        rival = away.softmax(1).scatter(1, y[:, None], 0).amax(1)
        boosted = cross_entropy(away, y, label_smoothing=self.label_smoothing)
        boosted = boosted - (CERTAIN - rival).log().mean()
        clean = logits.log_softmax(1)
        missed = 1 - clean.gather(1, y[:, None])[:, 0].exp()
        robust = (missed * potentials.divergence(away, clean)).mean()
        parts = {"boosted": boosted.detach(), "robust": robust.detach()}
        return boosted + self.beta * robust, parts

    def loss_cost(self, context: SamplerContext) -> int:
        """Gradients of the weights on two batches."""
        return 2

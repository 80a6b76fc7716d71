"""GKL (Cui et al., arXiv 2503.08038), the divergence that DKL and IKL (arXiv 2305.13948) lead to.

The gradient of KL(p(·|x) ‖ p(·|x̂)) is that of a weighted mean square error of logit differences
plus that of a cross-entropy with soft labels, if each stops the gradient of one side (DKL). IKL
lets the squared error change both sides and takes its weights from class means; GKL smooths them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import SerializeAsAny

from cembench.methods.adversarial import Adversarial
from cembench.samplers import Sampler, SamplerContext, samplers
from cembench.samplers.pgd import TRADES
from cembench.util.lazy import lazy_imports
from cembench.util.settings import NonNegative, Positive

with lazy_imports():
    import torch
    from torch import Tensor, nn
    from torch.nn.functional import cross_entropy, one_hot


class GKL(Adversarial):
    """Minimise CE(x, y) + β·WMSE(x, x̂) + α·CE(p(·|x), p(·|x̂)), no gradient in that p(·|x).

    WMSE = ¼ Σ w_k w_l·[(f_k − f_l)(x) − (f_k − f_l)(x̂)]² / Σ w_k w_l, summed over all pairs of
    classes and images. w = p̄(y)^γ, where p̄(y) is the mean of softmax(f(x)/T) over the images of
    class y in the epoch before, and uniform in the first epoch. γ = 1 is IKL. `class_means: false`
    with `symmetric: false` is DKL, whose gradient at α = β is that of TRADES.

    Built is the code (jiequancui/DKL, DKLv2), where T is in the class means alone. Its CIFAR-10
    recipe attacks with the cross-entropy of soft labels, as `trades` does; that for CIFAR-100 adds
    WMSE there. It raises ε linearly over all epochs (`eps_warmup`), and the steps from 2 to 5.

    Attributes:
        alpha: α, the weight of the cross-entropy.
        beta: β, the weight of the squared error.
        gamma: γ, below 1 for smoother weights.
        temperature: T.
        class_means: whether w is that of the class; else it is p(·|x), with no gradient.
        symmetric: whether the squared error has a gradient at x̂, too.
        negatives: sampler of x̂.

    Examples:
        DKL has the value of its own two parts, and the gradient of KL:

        >>> import torch
        >>> from cembench.energy.threat import Threat
        >>> from cembench.methods import methods
        >>> from cembench.samplers import SamplerContext
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
        >>> x, y = torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])
        >>> context = SamplerContext(Threat(norm="linf", eps=0.1), torch.Generator())
        >>> again = SamplerContext(context.threat, torch.Generator())
        >>> dkl = {"class_means": False, "symmetric": False, "alpha": 6, "beta": 6}
        >>> loss, _ = methods.parse({"name": "gkl", **dkl}).objective(model, x, y, context)
        >>> trades, _ = methods.parse("trades").objective(model, x, y, again)
        >>> found = [torch.autograd.grad(one, model[1].weight)[0] for one in (loss, trades)]
        >>> torch.allclose(*found, atol=1e-5)
        True
    """

    name: ClassVar[str] = "gkl"
    alpha: NonNegative = 4.0
    beta: NonNegative = 20.0
    gamma: NonNegative = 1.0
    temperature: Positive = 4.0
    class_means: bool = True
    symmetric: bool = True
    negatives: Annotated[SerializeAsAny[Sampler], samplers.field("trades")] = TRADES()

    def loss(
        self, model: nn.Module, images: dict[str, Tensor], y: Tensor, context: SamplerContext
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, its three terms, and sums over classes for `learn`."""
        away, logits = model(images["attacked"]).float(), model(images["x"]).float()
        natural = cross_entropy(logits, y, label_smoothing=self.label_smoothing)
        weights = self._weights(logits.detach(), y, context) ** self.gamma
        squared = weighted_error(logits, away if self.symmetric else away.detach(), weights)
        soft = cross_entropy(away, logits.detach().softmax(1))
        loss = natural + self.beta * squared + self.alpha * soft
        parts = {"natural": natural, "squared": squared, "soft": soft}
        found = {name: part.detach() for name, part in parts.items()}
        return loss, found | self._sums(logits.detach(), y, context)

    def _weights(self, logits: Tensor, y: Tensor, context: SamplerContext) -> Tensor:
        """Return w without its power, N×K."""
        if not self.class_means:
            return logits.softmax(1)
        means = _means(context.memory, context.epoch)
        if means is None:
            return torch.full_like(logits, 1 / logits.shape[1])
        return means.to(logits)[y]

    def _sums(self, logits: Tensor, y: Tensor, context: SamplerContext) -> dict[str, Tensor]:
        """Return sums of probabilities by class, K×K, and the epoch, in a tensor of one value."""
        if not self.class_means:
            return {}
        ones = one_hot(y, logits.shape[1]).to(logits)
        sums = ones.T @ (logits / self.temperature).softmax(1)
        return {"sums": sums, "epoch": sums.new_tensor([context.epoch])}

    def learn(self, memory: dict[str, Any], values: dict[str, Tensor], images: int) -> None:
        """Add the sums of a step to those of its epoch; keep the means of the one before."""
        if "sums" not in values:
            return
        epoch, sums = int(values["epoch"]), values["sums"]
        means, same = _means(memory, epoch), memory.get("epoch") == epoch
        before = memory["sums"].to(sums) if same else torch.zeros_like(sums)
        memory |= {"epoch": epoch, "sums": before + sums, "means": means}

    def loss_cost(self, context: SamplerContext) -> int:
        """Gradients of the weights on two batches."""
        return 2


def weighted_error(logits: Tensor, away: Tensor, weights: Tensor) -> Tensor:
    """Return ¼ Σ w_k w_l (Δ_k − Δ_l)² / Σ w_k w_l with Δ = f(x) − f(x̂), over images and classes.

    Args:
        logits: f(x), N×K.
        away: f(x̂), N×K.
        weights: w, N×K.
    """
    share = weights / weights.sum(1, keepdim=True)
    delta = logits - away
    spread = (share * (delta - (share * delta).sum(1, keepdim=True)).square()).sum(1)
    mass = weights.sum(1).square()  # Σ w_k w_l; the variance is half the mean over pairs
    return (mass * spread).sum() / (2 * mass.sum())


def _means(memory: Mapping[str, Any], epoch: int) -> Tensor | None:
    """Return the class means that an epoch takes, K×K, those of the last one; None at first."""
    if memory.get("epoch", epoch) == epoch:
        kept: Tensor | None = memory.get("means")
        return kept
    sums: Tensor = memory["sums"]
    total = sums.sum(1, keepdim=True)
    return torch.where(total > 0, sums / total, 1 / len(sums))  # some class had no images

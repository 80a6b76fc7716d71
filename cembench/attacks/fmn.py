"""FMN: the smallest perturbation that fools, in ℓ∞, ℓ2, ℓ1 or ℓ0 (Pintor et al., 2102.12827)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

from cembench.attacks import Attack, Propose, Target
from cembench.energy.norms import NORMS, by_norm, per_row, unit
from cembench.energy.potentials import margin
from cembench.energy.threat import NormName
from cembench.util.lazy import lazy_imports
from cembench.util.settings import Count, Positive

with lazy_imports():
    import torch
    from torch import Tensor

    from cembench.attacks.apgd import evaluate

LAST = 0.01  # of the first step is the last one
GAMMA, LAST_GAMMA = 0.05, 0.001  # by which share the radius shrinks and grows, first and last
SURE = 1e-5  # of the largest logit: a lead that rounding does not undo in another batch


class FMN(Attack):
    """Fast minimum-norm attack: steps along the gradient of the margin, in a ball that adapts.

    The ball shrinks while the image is misclassified and grows while it is not, so the search ends
    near the closest point of the decision boundary. It knows no radius: one run gives the accuracy
    at every ε, and the median smallest perturbation (`minimal` in records). Where its norm is the
    threat model's, images inside the ball count as those of any other attack.

    In ℓ2 it is nearly DDN (Rony et al., 1811.09600), which has cross-entropy and a sphere in place
    of margin and ball, and a rate that stays the same.

    Attributes:
        norm: the one to minimise.
        steps: gradients.
        step_size: ℓ2 length of the first step; the last one is a hundredth of it.

    Examples:
        >>> import torch
        >>> from cembench.attacks import Target
        >>> from cembench.energy.threat import Threat
        >>> _ = torch.manual_seed(0)
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4))
        >>> x = torch.rand(6, 1, 8, 8)
        >>> y = net(x).argmax(1)
        >>> target = Target.of(net, Threat(norm="linf", eps=0.3), classes=4)
        >>> [(name, propose)] = FMN(norm="l2").stages(target)
        >>> (net(propose(x, y)).argmax(1) == y).tolist()
        [False, False, False, False, False, False]
    """

    name: ClassVar[str] = "fmn"
    norm: NormName = "linf"
    steps: Count = 100
    step_size: Positive = 1.0

    @property
    def own_title(self) -> str:
        """The label, or the name with the norm."""
        return self.label or f"{self.name}-{self.norm}"

    @property
    def black_box(self) -> frozenset[str]:
        """None: it follows gradients."""
        return frozenset()

    @property
    def minimises(self) -> str:
        """Its norm."""
        return self.norm

    def stages(self, target: Target) -> list[tuple[str, Propose]]:
        """Return the search as one stage."""
        by_norm(PROJECTIONS, self.norm, "fmn")
        return [(self.title, lambda x, y: self._search(target, x, y))]

    def _search(self, target: Target, x: Tensor, y: Tensor) -> Tensor:
        search = _Search(target, x, y, self.norm)
        for step in range(self.steps):
            left = (1 + math.cos(math.pi * step / self.steps)) / 2
            rate = LAST_GAMMA + (GAMMA - LAST_GAMMA) * left
            search.step(self.step_size * (LAST + (1 - LAST) * left), rate)
        return search.best


class _Search:
    """The state of a search on N images: where it is, the radius of each, the best so far."""

    def __init__(self, target: Target, x: Tensor, y: Tensor, norm: str) -> None:
        self.target, self.x, self.y = target, x, y
        self.ball, self.project = NORMS[norm](0.0), PROJECTIONS[norm]
        self.size = self.ball.size
        self.at = self.best = x
        self.largest = self.size(torch.maximum(x, 1 - x))
        self.smallest = self.largest.clone()
        self.radius = torch.full_like(self.largest, 0 if self.ball.convex else 1)
        self.ever = torch.zeros_like(y, dtype=torch.bool)

    def step(self, length: float, rate: float) -> None:
        """Judge where the search is, adapt the radii, and take a step."""
        logits, lead, slope = evaluate(self.target.model, margin, self.at, self.y)
        fooled = lead > SURE * logits.abs().amax(1)
        self._keep(fooled)
        self.ever |= fooled
        self.radius = self._radius(fooled, lead, slope, rate)
        delta = self.at + length * unit(slope) - self.x
        self.at = (self.x + self.project(delta, self.radius)).clamp(0, 1)

    def _keep(self, fooled: Tensor) -> None:
        size = self.size(self.at - self.x)
        better = fooled & (size < self.smallest)
        if self.target.model is not self.target.verifier and bool(better.any()):
            with torch.no_grad():  # the network itself decides, not the copy that is followed
                better &= self.target.verifier(self.at).argmax(1) != self.y
        self.best = torch.where(per_row(better, self.x), self.at, self.best)
        self.smallest = torch.where(better, size, self.smallest)

    def _radius(self, fooled: Tensor, lead: Tensor, slope: Tensor, rate: float) -> Tensor:
        """Return the radii: smaller where fooled, else larger, or as far as the boundary seems."""
        shrunk, grown = self.radius * (1 - rate), self.radius * (1 + rate)
        if not self.ball.convex:  # sizes are whole numbers
            shrunk = torch.minimum(shrunk.floor(), self.radius - 1).clamp_min(1)
            grown = torch.maximum(grown.floor(), self.radius + 1)
        else:
            steepness = slope.flatten(1).norm(p=self.ball.dual_order, dim=1).clamp_min(1e-12)
            away = self.size(self.at - self.x) + lead.abs() / steepness
            # The overshoot ends the search beyond the boundary of a linear network, not on it, and
            # the radius grows also where pixels at 0 or 1 keep each step short of the boundary.
            grown = torch.where(self.ever, grown, torch.maximum(grown, away * (1 + rate)))
        radius = torch.where(fooled, torch.minimum(shrunk, self.smallest), grown)
        return torch.minimum(radius, self.largest)


def _linf(delta: Tensor, radius: Tensor) -> Tensor:
    edge = per_row(radius, delta)
    return delta.clamp(-edge, edge)


def _l2(delta: Tensor, radius: Tensor) -> Tensor:
    size = delta.flatten(1).norm(dim=1).clamp_min(1e-12)
    return delta * per_row((radius / size).clamp_max(1), delta)


def _l1(delta: Tensor, radius: Tensor) -> Tensor:
    """Soft thresholding, with the threshold found by sorting (Duchi et al., 2008)."""
    ranked = delta.flatten(1).abs().sort(1, descending=True).values
    count = torch.arange(1, ranked.shape[1] + 1, device=delta.device)
    threshold = (ranked.cumsum(1) - radius[:, None]) / count
    last = (ranked > threshold).sum(1, keepdim=True) - 1
    cut = threshold.gather(1, last.clamp_min(0)).clamp_min(0).squeeze(1)
    return delta.sign() * (delta.abs() - per_row(cut, delta)).clamp_min(0)


def _l0(delta: Tensor, radius: Tensor) -> Tensor:
    """Keep the pixels that change most, whatever their channels."""
    change = delta.flatten(2).norm(dim=1)
    rank = change.argsort(1, descending=True).argsort(1)
    kept = (rank < radius[:, None]).reshape(len(delta), 1, *delta.shape[2:])
    return delta * kept


# By norm: a change, N×C×H×W, and N radii to the nearest change of that size.
PROJECTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "linf": _linf,
    "l2": _l2,
    "l1": _l1,
    "l0": _l0,
}

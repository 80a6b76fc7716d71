"""Targeted PGD: toward one other class after the other, in an order of choice."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cembench.attacks import Attack, Propose, Target
from cembench.samplers import SamplerContext
from cembench.samplers.pgd import PGD
from cembench.util.errors import CembenchError
from cembench.util.lazy import lazy_imports
from cembench.util.settings import Count, NonNegative, Positive

with lazy_imports():
    import torch
    from torch import Tensor

    from cembench.attacks.apgd import evaluate, logit_gap
    from cembench.attacks.state import ranked_targets
    from cembench.util.rng import generator_of, uniform

CANDIDATES = 100  # the likeliest classes, among which MALT chooses
Order = Literal["likeliest", "malt", "random"]


class TargetedPGD(Attack):
    """PGD that raises f(x, t) − f(x, y) for one target t after the other, each from a random start.

    An image leaves the batch once it is misclassified, as whatever class. Where classes are many,
    the order of the targets decides what few of them find.

    Attributes:
        targets: how many classes each image is attacked toward.
        order: `likeliest` first; `random`; `malt`: of the 100 likeliest classes those first whose
            gap, divided by the dual norm of its gradient, is smallest, so those that would be
            nearest if the network were linear (MALT, arXiv 2407.02240); or a list of labels, toward
            which all images of other classes are attacked, in that order.
        steps: gradients per target.
        step_size: α in pixels; by default 2.5 ε / steps.
        momentum: as in `pgd`.

    Examples:
        >>> import torch
        >>> from cembench.attacks import Target
        >>> from cembench.energy.threat import Threat
        >>> _ = torch.manual_seed(0)
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4))
        >>> x = torch.rand(6, 1, 8, 8)
        >>> y = net(x).argmax(1)
        >>> target = Target.of(net, Threat(norm="linf", eps=0.3), classes=4)
        >>> [(name, propose)] = TargetedPGD(steps=5, order="malt").stages(target)
        >>> (net(propose(x, y)).argmax(1) == y).tolist()
        [False, False, False, False, False, False]
    """

    name: ClassVar[str] = "targeted"
    targets: Count = 9
    order: Order | Annotated[list[int], Field(min_length=1)] = "likeliest"
    steps: Count = 20
    step_size: Positive | None = None
    momentum: NonNegative = 0.0

    @property
    def black_box(self) -> frozenset[str]:
        """None: it follows gradients."""
        return frozenset()

    def stages(self, target: Target) -> list[tuple[str, Propose]]:
        """Return one stage with all targets."""
        if isinstance(self.order, list) and not {*self.order} <= {*range(target.classes)}:
            raise CembenchError(f"{self.title}: order: labels are 0 to {target.classes - 1}")

        def propose(x: Tensor, y: Tensor) -> Tensor:
            context = SamplerContext(target.threat, generator_of(target.seed, x.device))
            return self._toward(target, x, y, self._ranked(target, x, y, context), context)

        return [(self.title, propose)]

    def _ranked(self, target: Target, x: Tensor, y: Tensor, context: SamplerContext) -> Tensor:
        """Return the targets of each image in their order, N×T; −1 for none."""
        if isinstance(self.order, list):
            given = torch.tensor(self.order, device=x.device).expand(len(y), -1)
            return given.masked_fill(given == y[:, None], -1)
        with torch.no_grad():
            ranked = ranked_targets(target.verifier(x), y)
        if self.order == "random":
            ranked = ranked.gather(1, uniform(ranked.shape, context.generator).argsort(1))
        elif self.order == "malt":
            ranked = ranked[:, :CANDIDATES]
            near = [linear_distance(target, x, torch.stack([y, t], 1)) for t in ranked.unbind(1)]
            ranked = ranked.gather(1, torch.stack(near, 1).argsort(1))
        return ranked[:, : self.targets]

    def _toward(
        self, target: Target, x: Tensor, y: Tensor, ranked: Tensor, context: SamplerContext
    ) -> Tensor:
        found, left = x.clone(), torch.ones_like(y, dtype=torch.bool)
        own = target.model is target.verifier
        pgd = PGD(steps=self.steps, step_size=self.step_size, momentum=self.momentum)
        for classes in ranked.unbind(1):
            start = context.threat.ball.uniform(x, context.generator)
            rows = (left & (classes >= 0)).nonzero().squeeze(1)
            if len(rows) == 0:
                continue

            def visit(step: int, at: Tensor, z: Tensor, out: Tensor, rows: Tensor = rows) -> Tensor:
                wrong = out.argmax(1) != y[rows[at]]
                if not own and bool(wrong.any()):
                    with torch.no_grad():
                        judged = target.verifier(z[wrong]).argmax(1)
                    wrong[wrong.clone()] = judged != y[rows[at][wrong]]
                found[rows[at[wrong]]] = z[wrong]
                left[rows[at[wrong]]] = False
                return wrong

            pair = torch.stack([y[rows], classes[rows]], 1)
            pgd.climb(target.model, logit_gap, start[rows], pair, x[rows], context, visit)
        return found


def linear_distance(target: Target, x: Tensor, pair: Tensor) -> Tensor:
    """Return how far the boundary between two classes would be if the network were linear.

    Images x are N×C×H×W, their labels and the other classes N×2.
    """
    _, gap, gradient = evaluate(target.model, logit_gap, x, pair)
    steepness = gradient.flatten(1).norm(p=target.threat.ball.dual_order, dim=1)
    return -gap / steepness.clamp_min(1e-12)

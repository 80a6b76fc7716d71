"""Gradient-masking checks: ways in which measured robustness can be an illusion.

Each check runs attacks of its own.

Sources: Athalye et al., arXiv 1802.00420, section 3.1; Carlini et al., arXiv 1902.06705, section 5;
the checks of AutoAttack, arXiv 2003.01690. They reuse no verdict, which
would hide what they look for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from unittest.mock import patch

import torch
from torch import Tensor

from cembench.attacks import Target
from cembench.attacks.autoattack import square
from cembench.data.split import Split, subset
from cembench.energy import potentials
from cembench.energy.ascent import ascend
from cembench.evaluation.measure import Measurement, target_of
from cembench.evaluation.measures.robustness import Stage, run_stage
from cembench.evaluation.sections.sanity import SanityCheck, SanityConfig
from cembench.evaluation.statistics import wilson
from cembench.util.rng import derive, generator_of, isolated_rng

FEWEST = 20


@dataclass(frozen=True)
class Climb:
    """A fresh PGD: the largest loss on each image's way, and whether it was ever misclassified."""

    loss: Tensor
    broken: Tensor


class SanityContext:
    """A network under suspicion, and the attacks that several checks look at.

    Attributes:
        x: images, N×C×H×W, all classified as their labels y.
    """

    def __init__(self, target: Target, x: Tensor, y: Tensor, plan: SanityConfig) -> None:
        self.target, self.x, self.y, self.plan = target, x, y, plan
        self.eps = target.threat.eps

    @cached_property
    def one(self) -> Climb:
        """One step of size ε from the image itself: FGSM."""
        return self.climb(self.eps, 1)

    @cached_property
    def iterated(self) -> Climb:
        """PGD at ε."""
        return self.climb(self.eps, self.plan.steps)

    @cached_property
    def longer(self) -> Climb:
        """PGD at ε with five times the steps."""
        return self.climb(self.eps, 5 * self.plan.steps)

    def climb(self, eps: float, steps: int) -> Climb:
        """Climb the cross-entropy inside a ball of radius `eps`, without ever stopping early."""
        ball = self.target.threat.model_copy(update={"eps": eps}).ball
        loss = torch.full((len(self.y),), -torch.inf, device=self.x.device)
        broken = torch.zeros_like(self.y, dtype=torch.bool)

        def visit(step: int, rows: Tensor, x: Tensor, out: Tensor) -> None:
            loss[:] = torch.maximum(loss, potentials.cross_entropy(out, self.y))
            broken[:] |= out.argmax(1) != self.y

        generator = generator_of(derive(self.target.seed, "sanity"), self.x.device)
        ascend(
            self.target.model,
            potentials.cross_entropy,
            self.x if steps == 1 else ball.uniform(self.x, generator),
            self.y,
            steps=steps,
            step_size=eps if steps == 1 else 2.5 * eps / steps,
            direction=ball.direction,
            ball=ball,
            centre=self.x,
            visit=visit,
        )
        return Climb(loss, broken)


def randomised_forward(context: SanityContext) -> tuple[float, bool]:
    """Two forward passes differ."""
    with torch.no_grad():
        first, second = context.target.model(context.x), context.target.model(context.x)
    moved = (first - second).abs().amax(1) > 1e-4 * (1 + first.abs().amax(1))
    share = float(moved.float().mean())
    return share, share > 0 and context.target.verifier is context.target.model


def softmax_outputs(context: SanityContext) -> tuple[float, bool]:
    """Outputs are probabilities, or their logarithms."""
    with torch.no_grad():
        out = context.target.model(context.x)
    sums = out.sum(1) if bool((out >= 0).all()) else out.exp().sum(1)
    share = float(((sums - 1).abs() < 1e-4).float().mean())
    return share, share > 0.5


def gradients_in_forward(context: SanityContext) -> tuple[float, bool]:
    """The forward pass climbs or descends something itself."""
    engine = torch.autograd
    with (
        patch.object(engine, "grad", wraps=engine.grad) as grad,
        patch.object(engine, "backward", wraps=engine.backward) as backward,
        torch.no_grad(),
    ):
        context.target.model(context.x[:1])
    calls = grad.call_count + backward.call_count
    return float(calls), calls > 0


def zero_gradients(context: SanityContext) -> tuple[float, bool]:
    """The gradient of the loss vanishes, so that PGD stands still."""
    x = context.x.detach().requires_grad_()
    with torch.enable_grad():
        loss = potentials.cross_entropy(context.target.model(x), context.y)
        found = torch.autograd.grad(loss.sum(), x, allow_unused=True)[0]
    gradient = torch.zeros_like(x) if found is None else found
    return _share(gradient.flatten(1).abs().amax(1) == 0)


def one_step_wins(context: SanityContext) -> tuple[float, bool]:
    """One step breaks images that many do not."""
    return _share(context.one.broken & ~context.iterated.broken)


def more_steps_help(context: SanityContext) -> tuple[float, bool]:
    """Five times the steps break many more images: PGD has not converged."""
    return _share(context.longer.broken & ~context.iterated.broken, 0.02)


def loss_does_not_grow(context: SanityContext) -> tuple[float, bool]:
    """A larger ball holds no larger loss."""
    radii = [context.eps / 2, context.eps, 2 * context.eps]
    losses = [context.climb(eps, context.plan.steps).loss for eps in radii]
    growths = [(b - a).double() for a, b in pairwise(losses)]
    lowest = min(growths, key=lambda growth: float(growth.mean()))
    error = float(lowest.std()) / math.sqrt(len(lowest))
    return float(lowest.mean()), float(lowest.mean()) - 1.96 * error <= 0


def stands_at_any_radius(context: SanityContext) -> tuple[float, bool]:
    """Images stand where the ball holds every image there is."""
    everything = context.target.threat.ball.diameter(context.x)
    return _share(~context.climb(everything, 5 * context.plan.steps).broken, 0.02)


def black_box_wins(context: SanityContext) -> tuple[float, bool]:
    """Square, which sees no gradient, breaks images that PGD does not."""
    left = (~context.longer.broken).nonzero().squeeze(1)
    won = torch.zeros_like(context.longer.broken)
    if len(left):
        target = context.target
        everyone = torch.ones_like(won)
        stage = Stage("square", target, square(target, context.plan.queries), everyone)
        won[left] = run_stage("sanity", stage, context.x[left], context.y[left]).success
    return _share(won)


def _share(found: Tensor, limit: float = 0.01) -> tuple[float, bool]:
    """Return a share of images, and whether it is above the limit beyond chance."""
    count = int(found.sum())
    return count / len(found), wilson(count, len(found))[0] > limit


CHECKS: dict[Callable[[SanityContext], tuple[float, bool]], str] = {
    randomised_forward: "share of images whose logits differ between two passes; above 0, single "
    "verdicts are chance: use the protocol rand",
    softmax_outputs: "share of images whose outputs are probabilities or their logarithms; above "
    "0.5, gradients of the loss may vanish and log p(x) is lost",
    gradients_in_forward: "gradients computed inside a forward pass; above 0, the network adapts "
    "to its input, and attacks through it understate what is possible",
    zero_gradients: "share of images whose loss has a gradient of exactly zero; beyond chance "
    "above 1 %, white-box attacks stand still",
    one_step_wins: "share of images that one step breaks and PGD does not; beyond chance above "
    "1 %, gradients mislead",
    more_steps_help: "share of images that five times the steps break besides; beyond chance "
    "above 2 %, PGD has not converged",
    loss_does_not_grow: "smallest mean growth of the loss from ε/2 to ε to 2ε; unless it is above "
    "0 beyond chance, gradients lead nowhere",
    stands_at_any_radius: "share of images that stand although the ball holds every image; beyond "
    "chance above 2 %, PGD cannot find what must be there",
    black_box_wins: "share of images that Square breaks and PGD does not; beyond chance above 1 %, "
    "gradients hide what is there",
}

NEEDS_BALL = {one_step_wins, more_steps_help, loss_does_not_grow, black_box_wins}


def measure(config: SanityConfig, measurement: Measurement) -> list[SanityCheck]:
    """Run all checks on the network as it is, whatever the engine."""
    context = measurement.context
    classes, threat = len(context.split.classes), context.header.threat
    target = target_of(context.model, classes, context.protocol, threat)
    return sanity_checks(target, context.split, config)


def sanity_checks(target: Target, split: Split, plan: SanityConfig) -> list[SanityCheck]:
    """Look for every kind of illusion on some images of a split, those that are classified right.

    Checks are skipped with fewer than twenty of them, or where there is no ball.

    Args:
        target: the frozen network and the threat model.
        split: the attacked images.
        plan: how many of them, steps and queries.
    """
    some, _ = subset(split, plan.images)
    x, y = some.pixels(), some.labels
    with isolated_rng(derive(target.seed, "sanity")), torch.no_grad():
        right = target.verifier(x).argmax(1) == y
    context = SanityContext(target, x[right], y[right], plan)
    return [_checked(check, meaning, context) for check, meaning in CHECKS.items()]


def _checked(
    check: Callable[[SanityContext], tuple[float, bool]], meaning: str, context: SanityContext
) -> SanityCheck:
    name = check.__name__
    if len(context.y) < FEWEST or (context.eps == 0 and check in NEEDS_BALL):
        return SanityCheck(name=name, verdict="skipped", figure=None, meaning=meaning)
    with isolated_rng(derive(context.target.seed, "sanity", name)):
        figure, failed = check(context)
    context.target.model.require_finite(f"in the check {name}")
    return SanityCheck(
        name=name, verdict="fail" if failed else "pass", figure=figure, meaning=meaning
    )

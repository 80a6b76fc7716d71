"""Gradient-masking checks: ways in which measured robustness can be an illusion.

Each check runs attacks of its own.

Sources: Athalye et al., arXiv 1802.00420, section 3.1; Carlini et al., arXiv 1902.06705, section 5;
the checks of AutoAttack, arXiv 2003.01690. They reuse no verdict, which would hide what they look
for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import pandas as pd
import torch
from torch import Tensor

from cembench.attacks import Target
from cembench.attacks.square import SEARCHES
from cembench.data.split import Split, subset
from cembench.evaluation.cache import ChunkCache, kept
from cembench.evaluation.measure import Measurement
from cembench.evaluation.measures.black_box import black_box_check
from cembench.evaluation.measures.consistency import consistency_checks
from cembench.evaluation.measures.nearest_first import nearest_first
from cembench.evaluation.measures.sanity_attacks import SanityContext
from cembench.evaluation.sections.sanity import SanityCheck, SanityConfig
from cembench.evaluation.statistics import wilson
from cembench.util.processes.distributed import ALONE, World
from cembench.util.rng import derive, isolated_rng

FEWEST = 20


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
    """The forward pass optimises something itself."""
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
    """The gradient of the loss vanishes, so that PGD does not move."""
    _, gradient = context.clean
    return _share(context, gradient.flatten(1).abs().amax(1) == 0)


def one_step_wins(context: SanityContext) -> tuple[float, bool]:
    """One step succeeds on images where many steps fail."""
    return _share(context, context.one & ~context.iterated.broken)


def more_steps_help(context: SanityContext) -> tuple[float, bool]:
    """Five times the steps succeed on many more images: PGD has not converged."""
    left = context.standing
    found = nearest_first(context.iterated.loss[left], lambda group: context.longer(left[group]))
    return _share(context, found, 0.02)


def loss_does_not_grow(context: SanityContext) -> tuple[float, bool]:
    """A larger ball holds no larger loss."""
    half, double = (context.climb(scale * context.eps) for scale in (0.5, 2))
    losses = [half.loss, context.iterated.loss, double.loss]
    growths = [(b - a).double() for a, b in pairwise(losses)]
    lowest = min(growths, key=lambda growth: float(growth.mean()))
    error = float(lowest.std()) / math.sqrt(len(lowest))
    return float(lowest.mean()), float(lowest.mean()) - 1.96 * error <= 0


def stands_at_any_radius(context: SanityContext) -> tuple[float, bool]:
    """Images survive in a ball that holds every image there is."""
    everything = context.target.threat.ball.diameter(context.x[0].numel())
    return _share(context, ~context.search(everything, context.everyone), 0.02)


def black_box_wins(context: SanityContext) -> tuple[float, bool]:
    """Square, which sees no gradient, succeeds where PGD fails."""
    left = context.standing
    won = left[context.square(left)]
    return _share(context, ~context.longer(won))


def _share(context: SanityContext, found: Tensor, limit: float = 0.01) -> tuple[float, bool]:
    """Return how many of all images were found, and whether it is beyond chance above a limit."""
    count, images = int(found.sum()), len(context.y)
    return count / images, wilson(count, images)[0] > limit


Check = Callable[[SanityContext], tuple[float, bool]]
CHECKS: dict[Check, str] = {
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

# Those that take long, and another one that goes on with what it found, are made apart.
APART: list[list[Check]] = [[stands_at_any_radius], [more_steps_help, black_box_wins]]
NEEDS_BALL = {one_step_wins, more_steps_help, loss_does_not_grow, black_box_wins}
NEEDS_CONVEX = {one_step_wins, more_steps_help, black_box_wins}  # PGD in ℓ0 is a heuristic
NEEDS_GRADIENT = {*NEEDS_BALL, zero_gradients, stands_at_any_radius}


def measure(config: SanityConfig | None, measurement: Measurement) -> list[SanityCheck]:
    """Run the checks on the network as it is, whatever the engine.

    Those for which a protocol asks come first, then those that are always made.
    """
    target, context = measurement.target, measurement.context
    asked = [] if config is None else sanity_checks(target, context.split, config, context.cache)
    consistency = consistency_checks(target, context.split, measurement.unused)
    attacks = context.protocol.attacks
    checks = [*asked, *consistency, black_box_check(measurement.table, attacks, target)]
    measurement.warnings.update(_untried(checks, measurement.table))
    return checks


def _untried(checks: list[SanityCheck], table: pd.DataFrame) -> Iterator[str]:
    """Warn of survivors that sampled stages left, where gradients may mislead the other stages."""
    failed = ", ".join(check.name for check in checks if check.verdict == "fail")
    for column in map(str, table.filter(regex="_sample$")):
        left = int((table[column] == "untried").sum())
        if failed and left:
            title = column.removesuffix("_sample")
            yield f"{title} left {left} images untried although {failed} failed: leave out sample"


def share(config: SanityConfig | None, measurement: Measurement, ranks: World) -> None:
    """Run this process's share of the checks that a protocol asks for."""
    context = measurement.context
    if config is not None:
        sanity_checks(measurement.target, context.split, config, context.cache, ranks)


def sanity_checks(
    target: Target,
    split: Split,
    config: SanityConfig,
    cache: ChunkCache | None = None,
    ranks: World = ALONE,
) -> list[SanityCheck]:
    """Run the nine checks on images of a split that are classified correctly.

    Checks are skipped with fewer than twenty of them, where there is no ball or gradient, and those
    that take PGD for a strong attack in ℓ0, where it is none.

    Args:
        target: the network as it is.
        split: the attacked images.
        config: how many of them are checked, and how long.
        cache: where the checks that were made are kept, if anywhere.
        ranks: of several processes, each makes the checks that it is dealt.
    """
    context = lru_cache(partial(_context, target, split, config))
    apart = {check for group in APART for check in group}
    groups = [[check for check in CHECKS if check not in apart], *APART]
    found: dict[str, SanityCheck] = {}
    for number, group in ranks.deal("sanity", list(enumerate(groups))):
        rows = kept(cache, f"sanity.{number}", partial(_rows, group, context))
        found |= {row["name"]: SanityCheck.parse(row) for row in rows}
    return [found[check.__name__] for check in CHECKS if check.__name__ in found]


def _context(target: Target, split: Split, config: SanityConfig) -> SanityContext:
    some, _ = subset(split, config.images)
    x, y = some.pixels(), some.labels
    with isolated_rng(derive(target.seed, "sanity")), torch.no_grad():
        right = target.verifier(x).argmax(1) == y
    return SanityContext(target, x[right], y[right], config)


def _rows(group: list[Check], context: Callable[[], SanityContext]) -> list[dict[str, Any]]:
    return [_checked(check, CHECKS[check], context()).dump() for check in group]


def _checked(check: Check, meaning: str, context: SanityContext) -> SanityCheck:
    name = check.__name__
    no_ball, no_gradient = context.eps == 0, bool(context.target.no_gradient)
    lacking = (no_ball and check in NEEDS_BALL) or (no_gradient and check in NEEDS_GRADIENT)
    unlike = not context.target.threat.ball.convex and check in NEEDS_CONVEX
    no_square = check is black_box_wins and context.target.threat.norm not in SEARCHES
    if len(context.y) < FEWEST or lacking or unlike or no_square:
        return SanityCheck(name=name, verdict="skipped", figure=None, meaning=meaning)
    with isolated_rng(derive(context.target.seed, "sanity", name)):
        figure, failed = check(context)
    context.require_finite(f"in the check {name}")
    return SanityCheck(
        name=name, verdict="fail" if failed else "pass", figure=figure, meaning=meaning
    )

"""Attacks of the gradient-masking checks; what several checks need is computed once.

They reuse no verdict of the protocol's attacks, which would hide what the checks look for. Steps
may follow a copy of the network made for speed; whether an attack succeeded is decided by
`attacks.verdict.verify`, as everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from cembench.attacks import Target
from cembench.attacks.verdict import CheckedModel, verify
from cembench.energy import potentials
from cembench.energy.ascent import ascend, usual_step
from cembench.evaluation.measures.nearest_first import FirstSuccess, square_nearest_first
from cembench.evaluation.measures.robustness import Stage, run_stage
from cembench.evaluation.sections.sanity import SanityConfig
from cembench.models.copies.fast_copy import fast_copy
from cembench.models.engine import EXAMPLES
from cembench.util.rng import derive, generator_of

TOLERANCE = 1e-3  # of logits and gradients of a copy, relative to their length per image


@dataclass(frozen=True)
class Ascent:
    """A PGD run on M images.

    Attributes:
        loss: the largest loss along the path of each image.
        broken: whether it succeeded on each image.
    """

    loss: Tensor
    broken: Tensor


class SanityContext:
    """The network that is checked, and the attacks that several checks share.

    Attributes:
        x: images, N×C×H×W, all classified as their labels y.
        everyone: the numbers of all images.
    """

    def __init__(self, target: Target, x: Tensor, y: Tensor, config: SanityConfig) -> None:
        self.target, self.x, self.y, self.config = target, x, y, config
        self.eps = target.threat.eps
        self.everyone = torch.arange(len(y), device=y.device)

    @cached_property
    def clean(self) -> tuple[Tensor, Tensor]:
        """The network's logits at the images, N×K, and the gradients of its loss, N×C×H×W."""
        return self._gradients(self.target.model)

    @cached_property
    def surrogate(self) -> CheckedModel:
        """The network that attacks follow: a copy in float32, or the network itself.

        It is the network itself if logits or gradients of the copy differ at any image, as they do
        for a random network. Where gradients of the network vanish, those of the copy have to
        vanish as well: it must not be free of what masks the gradients of the network.
        """
        plain = self.target.model
        try:
            # Fused convolutions round differently, and gain little in float32.
            copied = fast_copy(plain.model, self.x[:EXAMPLES], False, False, fusing=False)
            surrogate = CheckedModel(copied, self.target.classes).eval()
            pairs = zip(self.clean, self._gradients(surrogate), strict=True)
        except Exception:  # as of layers that cannot be copied
            return plain
        same = [_length(own - found) <= TOLERANCE * _length(own) for own, found in pairs]
        return surrogate if bool(torch.cat(same).all()) else plain

    def require_finite(self, where: str) -> None:
        """Refuse a network that returned NaN or infinity since the last call.

        Raises:
            ModelError: saying where.
        """
        for model in (self.target.model, self.surrogate):
            model.require_finite(where)

    @cached_property
    def one(self) -> Tensor:
        """On which images one step of size ε from the image itself (FGSM) succeeds."""
        ball = self.target.threat.ball
        x = ball.project(self.x + self.eps * ball.steepest(self.clean[1], self.x), self.x)
        with torch.no_grad():
            return self.target.model(x).argmax(1) != self.y

    @cached_property
    def iterated(self) -> Ascent:
        """PGD at ε."""
        return self.climb(self.eps)

    def longer(self, rows: Tensor) -> Tensor:
        """Return on which of some images PGD at ε, or PGD with five times the steps, succeeds."""
        unknown = rows[self._longer[rows] < 0]
        if len(unknown):
            self._longer[unknown] = self.search(self.eps, unknown).long()
        return self._longer[rows] > 0

    @cached_property
    def _longer(self) -> Tensor:
        """Answers of `longer`, N: 0 or 1, and −1 for those that were not asked for yet."""
        return self.iterated.broken.long() * 2 - 1

    @property
    def standing(self) -> Tensor:
        """The numbers of the images on which no PGD run at ε has succeeded yet."""
        return (self._longer <= 0).nonzero().squeeze(1)

    def climb(self, eps: float) -> Ascent:
        """Run PGD in a ball of radius `eps`, all steps on all images."""
        return self._ascend(eps, self.config.steps, self.everyone, leave=False)

    def search(self, eps: float, rows: Tensor) -> Tensor:
        """Return on which of some images PGD with five times the steps succeeds."""
        return self._ascend(eps, 5 * self.config.steps, rows, leave=True).broken

    def square(self, rows: Tensor) -> Tensor:
        """Return on which of some images Square (arXiv 1912.00049) succeeds."""
        won = torch.zeros_like(rows, dtype=torch.bool)
        if len(rows) == 0:
            return won
        stage = Stage("square", self.target, self._square, ~won)
        return run_stage("sanity", stage, self.x[rows], self.y[rows]).success

    def _square(self, x: Tensor, y: Tensor) -> Tensor:
        state = FirstSuccess(self.target.verifier, x, y, self.target.threat.ball)
        few = len(self.y)  # as many as PGD has in a batch
        square_nearest_first(self.surrogate, state, self._seed, self.config.queries, few)
        return state.best

    @property
    def _seed(self) -> int:
        return derive(self.target.seed, "sanity")

    def _ascend(self, eps: float, steps: int, some: Tensor, leave: bool) -> Ascent:
        """Maximise the cross-entropy; images leave once it succeeds on them, if they may."""
        ball = self.target.threat.model_copy(update={"eps": eps}).ball
        x, y = self.x[some], self.y[some]
        loss = torch.full((len(y),), -torch.inf, device=y.device)
        broken = torch.zeros_like(y, dtype=torch.bool)

        def visit(step: int, rows: Tensor, at: Tensor, out: Tensor) -> Tensor | None:
            loss[rows] = torch.maximum(loss[rows], potentials.cross_entropy(out, y[rows]))
            wrong = (out.argmax(1) != y[rows]) & ~broken[rows]
            found = rows[wrong]
            if self.surrogate is not self.target.model and len(found):
                verdict = verify(self.target.verifier, x[found], at[wrong], y[found], ball)
                found = found[verdict.success]
            broken[found] = True
            return broken[rows] if leave else None

        generator = generator_of(self._seed, y.device)
        ascend(
            self.surrogate,
            potentials.cross_entropy,
            ball.uniform(self.x, generator)[some],
            y,
            steps=steps,
            step_size=usual_step(eps, steps),
            direction=ball.direction,
            ball=ball,
            centre=x,
            visit=visit,
        )
        return Ascent(loss, broken)

    def _gradients(self, model: nn.Module) -> tuple[Tensor, Tensor]:
        x = self.x.detach().requires_grad_()
        with torch.enable_grad():
            out = model(x)
            loss = potentials.cross_entropy(out, self.y).sum()
            (found,) = torch.autograd.grad(loss, x, allow_unused=True)
        return out.detach(), torch.zeros_like(x) if found is None else found


def _length(values: Tensor) -> Tensor:
    return values.flatten(1).double().norm(dim=1)  # squares of tiny gradients underflow in float32

"""Samplers inside the threat model: the inner maximisations of adversarial training."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from cembench.energy import potentials
from cembench.energy.ascent import Visit, ascend, to_bytes
from cembench.energy.norms import Ball
from cembench.energy.potentials import Potential
from cembench.models.folding import climbed
from cembench.samplers import Sampler, Scene
from cembench.util.rng import normal
from cembench.util.settings import Count, NonNegative, Positive


class InBall(Sampler):
    """A sampler that climbs inside the ball of the threat model.

    Attributes:
        step_size: α in pixels; by default 2.5 ε / steps (Madry et al.), and 1.25 ε for one step
            (Fast-AT, arXiv 2001.03994).
    """

    step_size: Positive | None = None

    @property
    def in_ball(self) -> bool:
        """Yes: the ball is what it is for."""
        return True

    def alpha(self, eps: float) -> float:
        """Return the step size for a radius."""
        if self.step_size is not None:
            return self.step_size
        return (1.25 if self.steps == 1 else 2.5 / self.steps) * eps

    def _within(
        self,
        scene: Scene,
        model: nn.Module,
        potential: Potential,
        start: Tensor,
        target: Tensor,
        centre: Tensor,
        visit: Visit | None = None,
    ) -> Tensor:
        """Climb by the steepest direction of the scene's ball, without leaving it."""
        ball = scene.threat.ball
        return ascend(
            model,
            potential,
            start,
            target,
            steps=self.steps,
            step_size=self.alpha(scene.threat.eps),
            direction=ball.direction,
            ball=ball,
            centre=centre,
            visit=visit,
        )


class PGD(InBall):
    """Projected gradient ascent on the cross-entropy (arXiv 1706.06083).

    Attributes:
        start: `uniform` in the ball, or the image itself (`data`).
        restarts: independent starts of `search`; `draw` uses one.
    """

    name: ClassVar[str] = "pgd"
    start: Literal["uniform", "data"] = "uniform"
    restarts: Count = 1

    def draw(
        self, model: nn.Module, x: Tensor, y: Tensor, scene: Scene, target: Tensor | None = None
    ) -> Tensor:
        """Return the last iterate."""
        return self._climb(model, x, y if target is None else target, scene, None)

    def search(
        self, model: nn.Module, x: Tensor, y: Tensor, scene: Scene, judge: nn.Module | None = None
    ) -> Tensor:
        """Return for each image the best iterate: misclassified before large loss.

        An image leaves the batch once an iterate is misclassified as it is and rounded to bytes
        too; later restarts take those that never were.

        Args:
            model: what is climbed.
            x: images, N×C×H×W.
            y: their labels, N.
            scene: the ball and the randomness.
            judge: what decides what is misclassified, if not the model.
        """
        best = _Best(judge or model, judge is None, x, y, scene.threat.ball)
        for _ in range(self.restarts):
            rows = best.standing
            if len(rows) == 0:
                break
            self._climb(model, x[rows], y[rows], scene, partial(best.visit, rows))
        return best.x

    def _climb(
        self, model: nn.Module, x: Tensor, y: Tensor, scene: Scene, visit: Visit | None
    ) -> Tensor:
        start = scene.threat.ball.uniform(x, scene.generator) if self.start == "uniform" else x
        with climbed(model, x, self.mode) as net:
            return self._within(scene, net, potentials.cross_entropy, start, y, x, visit)


class TRADES(InBall):
    """TRADES' inner maximisation: climb KL(p(·|x₀) ‖ p(·|x)) from x₀ plus a little noise.

    Source: arXiv 1901.08573 and its code.

    Attributes:
        noise: σ of that noise.
    """

    name: ClassVar[str] = "trades"
    noise: NonNegative = 0.001

    def draw(
        self, model: nn.Module, x: Tensor, y: Tensor, scene: Scene, target: Tensor | None = None
    ) -> Tensor:
        """Return the last iterate; labels and target are not used."""
        start = x + self.noise * normal(x.shape, scene.generator)
        with climbed(model, x, self.mode) as net:
            with torch.no_grad():
                clean = net(x).float().log_softmax(1)
            return self._within(scene, net, potentials.divergence, start, clean, x)


class _Best:
    """The best iterate of each image so far, by a score: how broken it is, then its loss.

    The score is 1 for misclassified, 1 more if that survives rounding to bytes, and a share of
    1 that grows with the loss.
    """

    def __init__(
        self, judge: nn.Module, climbed: bool, centre: Tensor, y: Tensor, ball: Ball
    ) -> None:
        self.judge, self.climbed, self.centre, self.y, self.ball = judge, climbed, centre, y, ball
        self.x = centre.clone()
        self.score = torch.full((len(y),), -1.0, device=centre.device)

    @property
    def standing(self) -> Tensor:
        """The numbers of the images that were never misclassified."""
        return (self.score < 1).nonzero().squeeze(1)

    def visit(self, active: Tensor, step: int, rows: Tensor, x: Tensor, out: Tensor) -> Tensor:
        """Look at an iterate of the images `active[rows]` and say which of them are done."""
        rows = active[rows]
        loss = potentials.cross_entropy(out, self.y[rows])
        wrong = out.argmax(1) != self.y[rows]
        if not self.climbed and bool(wrong.any()):
            wrong[wrong.clone()] = self._misjudged(x[wrong], rows[wrong])
        done = wrong.clone()
        if bool(wrong.any()):
            rounded = to_bytes(x[wrong], self.centre[rows[wrong]], self.ball)
            done[wrong] = self._misjudged(rounded, rows[wrong])
        score = wrong.float() + done.float() + loss / (1 + loss)
        better = score > self.score[rows]
        self.x[rows[better]], self.score[rows[better]] = x[better], score[better]
        return done

    @torch.no_grad()
    def _misjudged(self, x: Tensor, rows: Tensor) -> Tensor:
        return self.judge(x).argmax(1) != self.y[rows]

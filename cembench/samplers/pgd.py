"""PGD and TRADES' inner maximisation: samplers that stay in the ball of the threat model."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from functools import partial
from typing import ClassVar, Literal

from cembench.energy import potentials
from cembench.energy.norms import Ball
from cembench.energy.potentials import Potential
from cembench.energy.threat import Threat
from cembench.samplers import Ascent, SamplerContext
from cembench.util.lazy import lazy_imports
from cembench.util.settings import Count, NonNegative, Positive, optional_field

with lazy_imports():
    import torch
    from torch import Tensor, nn

    from cembench.energy.ascent import Visit, ascend
    from cembench.models.copies.surrogate import ascent_model
    from cembench.samplers.best_iterates import BestIterates
    from cembench.util.rng import normal

SMALL = 0.001  # σ of the noise from which TRADES and MART start


class InBall(Ascent):
    """Projected gradient ascent in the ball of the threat model.

    Attributes:
        step_size: α in pixels; by default 2.5 ε / steps (Madry et al.), and 1.25 ε for one step
            (Fast-AT, arXiv 2001.03994).
    """

    step_size: Positive | None = None

    @property
    def in_ball(self) -> bool:
        """Whether samples stay in the ball: yes."""
        return True

    def alpha(self, eps: float) -> float:
        """Return the step size for a radius."""
        if self.step_size is not None:
            return self.step_size
        return (1.25 if self.steps == 1 else 2.5 / self.steps) * eps

    def require_possible(self, threat: Threat) -> None:
        """Refuse a step that reaches every image."""
        if self.step_size is not None:
            replace(threat.ball, eps=self.step_size).require_below_diameter("step_size")

    @abstractmethod
    def raised(self, net: nn.Module, x: Tensor) -> Potential:
        """Return what rises from the images x, a function of N×K logits and N targets."""

    def _ascend(
        self,
        model: nn.Module,
        potential: Potential,
        start: Tensor,
        target: Tensor,
        centre: Tensor,
        context: SamplerContext,
        visit: Visit | None = None,
        within: Ball | None = None,
        momentum: float = 0.0,
    ) -> Tensor:
        """Return the last iterates of the steepest ascent in the ball around `centre`.

        Another ball to stay `within` may be given, and the `momentum` of the gradients.
        """
        ball = context.threat.ball
        return ascend(
            model,
            potential,
            start,
            target,
            steps=self.steps,
            step_size=self.alpha(context.threat.eps),
            direction=ball.direction,
            ball=within or ball,
            centre=centre,
            momentum=momentum,
            visit=visit,
        )


class PGD(InBall):
    """Projected gradient ascent of the cross-entropy (arXiv 1706.06083), or of another loss.

    Attributes:
        loss: what it raises: `cross-entropy`; `margin`, max_{k ≠ y} f(x, k) − f(x, y) (Carlini and
            Wagner, arXiv 1608.04644); `probability-margin`, the same of softmax probabilities (PMA,
            arXiv 2411.15210); or `dlr`, the margin over the gap of the first and the third logit
            (arXiv 2003.01690), for three classes or more.
        start: `uniform` in the ball, the image itself (`data`), or the image plus Gaussian noise of
            σ = 0.001 (`normal`), as in the code of TRADES and MART.
        restarts: independent starts of `search`; `draw` uses one.
        momentum: μ of MI-FGSM (arXiv 1710.06081), 1 there: steps follow the sum of all gradients so
            far, each scaled to ℓ1 length 1 and weighted with μ per step of age.

    Examples:
        PGD raises the loss and stays in the ball. As in a config, `{name: pgd, steps: 5}`:

        >>> import torch
        >>> from cembench.energy.threat import Threat
        >>> from cembench.samplers import SamplerContext, samplers
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
        >>> x, y = torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])
        >>> context = SamplerContext(Threat(norm="linf", eps=0.1), torch.Generator())
        >>> moved = samplers.parse({"name": "pgd", "steps": 5}).draw(model, x, y, context)
        >>> loss = torch.nn.functional.cross_entropy
        >>> bool(loss(model(moved), y) > loss(model(x), y))
        True
        >>> bool((moved - x).abs().max() <= 0.1 + 1e-6)
        True
    """

    name: ClassVar[str] = "pgd"
    start: Literal["uniform", "normal", "data"] = "uniform"
    loss: Literal["cross-entropy", "margin", "probability-margin", "dlr"] = optional_field(
        "cross-entropy"
    )
    restarts: Count = 1
    momentum: NonNegative = optional_field(0.0)

    @property
    def potential(self) -> Potential:
        """The loss, of N×K logits and N labels."""
        return potentials.LOSSES[self.loss]

    def raised(self, net: nn.Module, x: Tensor) -> Potential:
        """Return the loss."""
        return self.potential

    def draw(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        context: SamplerContext,
        target: Tensor | None = None,
    ) -> Tensor:
        """Return the last iterates."""
        return self._run(model, x, y if target is None else target, context, None)

    def search(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        context: SamplerContext,
        judge: nn.Module | None = None,
    ) -> Tensor:
        """Return the best iterate of each image: misclassified first, then the largest loss.

        An image leaves the batch once an iterate is misclassified both as it is and rounded to 8
        bits; later restarts attack the images that were never misclassified.

        Args:
            model: the model whose gradients are followed.
            x: images, N×C×H×W.
            y: their labels, N.
            context: threat model and randomness.
            judge: the model that decides what is misclassified, if it is another one.
        """
        ball = context.threat.ball
        best = BestIterates(judge or model, judge is None, self.potential, x, y, ball)
        for _ in range(self.restarts):
            rows = best.correct
            if len(rows) == 0:
                break
            self._run(model, x[rows], y[rows], context, partial(best.visit, rows))
            best.look()
        return best.x

    def _run(
        self, model: nn.Module, x: Tensor, y: Tensor, context: SamplerContext, visit: Visit | None
    ) -> Tensor:
        start = x
        if self.start == "uniform":
            start = context.threat.ball.uniform(x, context.generator)
        elif self.start == "normal":
            noise = SMALL * normal(x.shape, context.generator)
            start = context.threat.ball.project(x + noise, x)
        return self.climb(model, self.potential, start, y, x, context, visit)

    def climb(
        self,
        model: nn.Module,
        potential: Potential,
        start: Tensor,
        target: Tensor,
        x: Tensor,
        context: SamplerContext,
        visit: Visit | None = None,
    ) -> Tensor:
        """Return the last iterates of the ascent of any potential, from given images around x."""
        with ascent_model(model, x, self.mode, context.surrogate) as net:
            run = partial(self._ascend, visit=visit, momentum=self.momentum)
            return run(net, potential, start, target, x, context)


class TRADES(InBall):
    """Inner maximisation of TRADES: ascent of KL(p(·|x₀) ‖ p(·|x)) from x₀ plus Gaussian noise.

    Source: arXiv 1901.08573 and its code.

    Attributes:
        noise: σ of that noise.

    Examples:
        The predictions move away from those on the clean images; labels are not used:

        >>> import torch
        >>> from cembench.energy.threat import Threat
        >>> from cembench.samplers import SamplerContext, samplers
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
        >>> x, y = torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])
        >>> context = SamplerContext(Threat(norm="linf", eps=0.1), torch.Generator())
        >>> moved = samplers.parse({"name": "trades", "steps": 5}).draw(model, x, y, context)
        >>> clean, away = model(x).log_softmax(1), model(moved).log_softmax(1)
        >>> bool((clean.exp() * (clean - away)).sum() > 0)
        True
        >>> bool((moved - x).abs().max() <= 0.1 + 1e-6)
        True
    """

    name: ClassVar[str] = "trades"
    noise: NonNegative = SMALL

    def draw(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        context: SamplerContext,
        target: Tensor | None = None,
    ) -> Tensor:
        """Return the last iterates; labels and target are not used."""
        start = x + self.noise * normal(x.shape, context.generator)
        with ascent_model(model, x, self.mode, context.surrogate) as net:
            return self._ascend(net, self.raised(net, x), start, y, x, context)

    def raised(self, net: nn.Module, x: Tensor) -> Potential:
        """Return the divergence from the predictions on x; it takes no target."""
        with torch.no_grad():
            clean = net(x).float().log_softmax(1)
        return lambda out, target: potentials.divergence(out, clean)

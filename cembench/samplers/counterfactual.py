"""Counterfactuals: the smallest change after which a network reads an image as another class.

The change is sought in a ball around the image, by ascent of log p(y′|x) with steps along the
steepest direction of the norm. An image stops as soon as the network is confident enough; the
result is the nearest such image on the straight line to it. Robust networks put features of the
class y′ there, others noise (Augustin et al., RATIO, arXiv 2003.09461; DAT, arXiv 2510.13872).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from cembench.energy import potentials
from cembench.energy.norms import NORMS, Ball, by_norm
from cembench.energy.threat import NormName
from cembench.samplers.edit import Edit
from cembench.util.lazy import lazy_imports
from cembench.util.settings import Count, Fraction, Positive

with lazy_imports():
    import torch
    from torch import Tensor, nn

    from cembench.energy.ascent import ascend, usual_step
    from cembench.energy.norms import per_row
    from cembench.models.copies.surrogate import ascent_model
    from cembench.samplers.edited import Edited, confidence, likeliest_other, reads

HALVINGS = 12  # of the line to the result: its distance is known to a 4096th of it
ROUNDING = 1e-3  # by which a confidence may be missed, since rounding depends on the machine


class Counterfactual(Edit):
    """Search for the smallest change after which a network reads an image as another class.

    Attributes:
        eps: the largest change, in pixels on [0, 1].
        norm: of the change.
        confidence: what the network's probability of the class has to reach, as the largest one; 0
            asks for the largest alone, the boundary between classes. Networks compare at the same
            confidence.
        steps: gradients per image at most.
        step_size: length of a step in the norm; 2.5 ε / steps unless given.

    Examples:
        On a linear network the change is the distance to the boundary:

        >>> import torch
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2, bias=False))
        >>> net[1].weight.data = torch.tensor([[1.0, 0, 0, 0], [-1.0, 0, 0, 0]])
        >>> x = torch.full((1, 1, 2, 2), 0.5)
        >>> x[0, 0, 0, 0] = 0.25
        >>> net[1].bias = torch.nn.Parameter(torch.tensor([-0.5, 0.5]))
        >>> found = Counterfactual(eps=1.0, confidence=0.0).search(net, x, torch.tensor([0]))
        >>> round(float((found - x).norm()), 3)
        0.25
    """

    title: ClassVar[str] = "counterfactuals"
    result: ClassVar[str] = "counterfactual"
    avoids_target: ClassVar[bool] = True
    eps: Positive
    norm: NormName = "l2"
    confidence: Fraction = 0.9
    steps: Count = 100
    step_size: Positive | None = None

    @property
    def ball(self) -> Ball:
        """The images that the change may reach."""
        return by_norm(NORMS, self.norm, "counterfactuals")(self.eps)

    def search(
        self, model: nn.Module, x: Tensor, target: Tensor, judge: nn.Module | None = None
    ) -> Tensor:
        """Return the counterfactual of each image; where none is found, the last iterate.

        Args:
            model: the network whose gradients are followed, images to N×K logits.
            x: images in [0, 1], N×C×H×W.
            target: the classes that they are to be read as, N.
            judge: the network that reads them, if it is another one.
        """
        ball = self.ball

        def reached(step: int, rows: Tensor, at: Tensor, out: Tensor) -> Tensor:
            return reads(out, target[rows], self.confidence)

        with ascent_model(model, x) as net:
            found = ascend(
                net,
                potentials.conditional,
                x,
                target,
                steps=self.steps,
                step_size=self.step_size or usual_step(self.eps, self.steps),
                direction=ball.direction,
                ball=ball,
                centre=x,
                visit=reached,
            )
            with torch.no_grad():
                return self._nearest(judge or net, x, found, target)

    def _nearest(self, judge: nn.Module, x: Tensor, found: Tensor, target: Tensor) -> Tensor:
        """Return the first image on the line from x to what was found that is read as it is."""
        low, high = torch.zeros(len(x), device=x.device), torch.ones(len(x), device=x.device)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            there = reads(judge(_between(x, found, middle)), target, self.confidence)
            low, high = torch.where(there, low, middle), torch.where(there, middle, high)
        still = reads(judge(x), target, self.confidence)
        return _between(x, found, high.masked_fill(still, 0.0))

    def reached(self, out: Tensor, x: Tensor, found: Tensor, target: Tensor) -> Tensor:
        """Return which images are counterfactuals, by the outputs of the network on them (N×K)."""
        inside = self.ball.size((found - x).double()) <= self.eps + self.ball.tolerance
        pixels = ((found >= 0) & (found <= 1)).flatten(1).all(1)
        return reads(out, target, self.confidence - ROUNDING) & inside & pixels

    def apply(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        target: Tensor | None,
        generator: torch.Generator,
    ) -> Edited:
        """Return the counterfactuals toward the target, or the second most likely class.

        Raises:
            ConfigError: for a radius that reaches every image.
        """
        self.ball.require_below_diameter("eps", x[0].numel())
        with torch.no_grad():
            before = model(x).float()
        wanted = likeliest_other(before) if target is None else target
        found = self.search(model, x, wanted)
        with torch.no_grad():
            return Edited(found, x, wanted, model(found).float(), before, x, y)

    def figures(self, edited: Edited) -> dict[str, Tensor]:
        """Return distance, confidence before and after, and whether the class was reached."""
        x, found, target = edited.originals, edited.images, edited.labels
        return {
            "reached": self.reached(edited.logits, x, found, target).float(),
            "distance": self.ball.size(found - x),
            "confidence": edited.confidence,
            "confidence_start": confidence(edited.start_logits, target),
        }

    def summary(self, figures: Mapping[str, Tensor]) -> dict[str, float]:
        """Return share reached, median distance of these, and mean confidences of all images.

        The distance is left out where no image reached its class.
        """
        found = {key: float(figures[key].mean()) for key in figures if key != "distance"}
        there = figures["distance"][figures["reached"] > 0]
        return found | ({"distance": float(there.median())} if len(there) else {})

    def lines(self, summary: Mapping[str, float]) -> list[str]:
        """Return the summary as text."""
        level = f"with confidence {self.confidence:g}" if self.confidence else "as the likeliest"
        lines = [f"reached the class {level}: {summary['reached']:.1%}"]
        if "distance" in summary:
            lines.append(f"median {self.norm} distance of these: {summary['distance']:.3g}")
        before, after = summary["confidence_start"], summary["confidence"]
        return [*lines, f"mean confidence in the class: {after:.3f} (originals: {before:.3f})"]

    def after(self, edited: Edited) -> dict[str, Tensor]:
        """Return the difference."""
        return {"difference, amplified": edited.difference}


def _between(x: Tensor, found: Tensor, share: Tensor) -> Tensor:
    """Return images on the lines from x to what was found; at the ends these themselves."""
    share = per_row(share, x)
    return torch.where(share == 1, found, x + share * (found - x))

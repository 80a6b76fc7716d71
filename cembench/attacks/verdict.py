"""The one place that decides whether an image is broken."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cembench.energy.ascent import Ball, to_bytes
from cembench.models.classifier import check_logits
from cembench.util.errors import ModelError

NOTING = threading.Lock()  # several threads may attack the same network
TOLERANCE = 1e-5  # float32 rounding of a norm over thousands of pixels near 1.0


class CheckedModel(nn.Module):
    """A network that must keep returning rows×classes finite logits while it is attacked.

    Finiteness is noted on the device in each pass and looked at in `require_finite`, so that
    attacks do not wait for it.
    """

    def __init__(self, model: nn.Module, classes: int) -> None:
        super().__init__()
        self.model = model
        self.classes = classes
        self._finite: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits in float32."""
        out = self.model(x)
        check_logits(out, len(x), self.classes)
        finite = out.detach().isfinite().all()
        with NOTING:
            self._finite = finite if self._finite is None else self._finite & finite
        return out.float()

    def require_finite(self, where: str) -> None:
        """Refuse a network that returned NaN or infinity since the last call.

        Raises:
            ModelError: saying where.
        """
        finite, self._finite = self._finite, None
        if finite is not None and not bool(finite):
            raise ModelError(f"the model returned logits that are not finite {where}")


class Averaged(nn.Module):
    """A randomised network as the classifier it is on average (arXiv 1802.00420, section 5.2).

    Its logits are logarithms of the mean probabilities of several forward passes, so climbing
    them is expectation over transformation.
    """

    def __init__(self, model: nn.Module, passes: int) -> None:
        super().__init__()
        self.model = model
        self.passes = passes

    def forward(self, x: Tensor) -> Tensor:
        """Return log mean softmax over the passes, in float32."""
        logs = [self.model(x).float().log_softmax(1) for _ in range(self.passes)]
        return torch.stack(logs).logsumexp(0) - math.log(self.passes)


def averaged(model: nn.Module, passes: int) -> nn.Module:
    """Return a network as it is on average over some passes; itself for one."""
    return model if passes == 1 else Averaged(model, passes)


@dataclass(frozen=True)
class Verdict:
    """What became of proposed images.

    Attributes:
        broken: misclassified by a plain float32 pass, inside the ball and [0, 1]; N booleans.
        broken_8bit: the same for the image rounded to bytes.
        size: norm of the perturbation, N values.
        images: the proposals as they were judged, N×C×H×W.
    """

    broken: Tensor
    broken_8bit: Tensor
    size: Tensor
    images: Tensor


@torch.no_grad()
def verify(model: nn.Module, x: Tensor, proposed: Tensor, y: Tensor, ball: Ball) -> Verdict:
    """Judge proposals for images x with labels y; one outside the rules breaks nothing."""
    proposed = proposed.detach().to(x.dtype)
    size = ball.size((proposed - x).double()).float()
    inside = (proposed >= 0) & (proposed <= 1)
    valid = inside.flatten(1).all(1) & (size <= ball.eps + TOLERANCE)
    judged = torch.where(valid.reshape(-1, 1, 1, 1), proposed, x)
    rounded = to_bytes(judged, x, ball)
    broken = valid & (model(judged).argmax(1) != y)
    broken_8bit = broken & (model(rounded).argmax(1) != y)
    return Verdict(broken, broken_8bit, size, judged)

"""Verdicts: the one place that decides whether an attack succeeded on an image."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cembench.energy.ascent import to_bytes
from cembench.energy.norms import Ball, per_row
from cembench.models.classifier import called, check_logits
from cembench.util.errors import ModelError
from cembench.util.frozen import exact

LOCK = threading.Lock()  # several threads may attack the same network


class CheckedModel(nn.Module):
    """A network that must keep returning finite logits, rows×classes, while it is attacked.

    Logits of any real type count, integers and booleans included, as they are in float32. Whether
    they are finite there is recorded on the device in each pass and read by `require_finite`, so
    attacks do not wait for the device.
    """

    def __init__(self, model: nn.Module, classes: int) -> None:
        super().__init__()
        self.model = model
        self.classes = classes
        self._largest: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits in float32, on the device of the images.

        Raises:
            ModelError: for anything but rows×classes logits, and when the network raises an error.
        """
        out = called(self.model, x)
        check_logits(out, len(x), self.classes)
        out = (out.clone() if out.is_inference() else out).to(x.device, torch.float32)
        if len(out):
            self._note(out.detach().abs().amax())  # NaN if one of them is
        return out

    def _note(self, largest: Tensor) -> None:
        with LOCK:
            known = self._largest
            self._largest = largest if known is None else torch.maximum(known, largest)

    def require_finite(self, where: str) -> None:
        """Refuse a network that returned NaN or infinity since the last call.

        Raises:
            ModelError: saying where.
        """
        largest, self._largest = self._largest, None
        if largest is not None and not math.isfinite(largest):
            raise ModelError(f"the model returned logits that are not finite {where} (in float32)")


class Averaged(nn.Module):
    """The mean of a randomised network over several passes (arXiv 1802.00420, section 5.2).

    Its logits are logarithms of the mean probabilities, so gradient ascent on them is expectation
    over transformation (EOT).
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
    """Return the mean of a network over some passes; the network itself for one."""
    return model if passes == 1 else Averaged(model, passes)


@dataclass(frozen=True)
class Verdict:
    """Verdicts on N proposed images.

    Attributes:
        success: misclassified by a plain float32 pass, inside the ball and [0, 1]; N booleans.
        success_8bit: the same for the image rounded to 8 bits.
        size: norm of the perturbation, N values.
        images: the proposed images, N×C×H×W; the clean image for one outside the rules, unless it
            is `outside`.
        outside: misclassified by such a pass once clipped to [0, 1], but outside the ball or
            [0, 1], N booleans. They count for nothing, and tell that an attack followed other
            rules.
    """

    success: Tensor
    success_8bit: Tensor
    size: Tensor
    images: Tensor
    outside: Tensor


@torch.no_grad()
def verify(model: nn.Module, x: Tensor, proposed: Tensor, y: Tensor, ball: Ball) -> Verdict:
    """Decide for which images an attack succeeded; never with an image outside ball or [0, 1].

    Clean images x and proposed ones are N×C×H×W, labels y are N.
    """
    proposed = proposed.detach().to(x.dtype)
    size = ball.size((proposed - x).double()).float()
    inside = (proposed >= 0) & (proposed <= 1)
    valid = inside.flatten(1).all(1) & (size <= ball.eps + ball.tolerance)
    images = torch.where(per_row(valid, x), proposed, x)
    rounded = to_bytes(images, x, ball)
    with exact():
        success = valid & (model(images).argmax(1) != y)
        success_8bit = success & (model(rounded).argmax(1) != y)
        outside = _fooled(model, proposed, y, ~valid)
    images = torch.where(per_row(outside, x), proposed, images)
    return Verdict(success, success_8bit, size, images, outside)


def _fooled(model: nn.Module, proposed: Tensor, y: Tensor, asked: Tensor) -> Tensor:
    """Return which of the images that are asked about, once clipped to [0, 1], fool a network.

    One that is not finite does not.
    """
    fooled = torch.zeros_like(asked)
    rows = (asked & proposed.isfinite().flatten(1).all(1)).nonzero().squeeze(1)
    if len(rows):
        fooled[rows] = model(proposed[rows].clamp(0, 1)).argmax(1) != y[rows]
    return fooled

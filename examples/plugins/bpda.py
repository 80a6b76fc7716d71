"""An adaptive attack: BPDA (Athalye et al., arXiv 1802.00420) on defences that round.

cembench eval CHECKPOINT --plugin bpda 'attacks=[autoattack, {name: bpda, steps: 40}]'

`torch.round` has a gradient of zero, so a network that rounds its images or its logits stops every
attack by gradients; and where logits are rounded, Square sees no progress either. This attack lets
gradients pass through as if nothing had been rounded. Verdicts are taken without it, as ever.
"""

from functools import partial
from typing import ClassVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from cembench.attacks import attacks
from cembench.attacks.pgd import PGDAttack

ROUNDING = {torch.round, torch.Tensor.round, torch.floor, torch.Tensor.floor}


class StraightThrough(TorchFunctionMode):
    """Rounds forward, and is the identity backward."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Return what a function does, with another gradient if it rounds."""
        out = func(*args, **(kwargs or {}))
        return args[0] + (out - args[0]).detach() if func in ROUNDING else out


def through(propose, x, y):
    """Propose images with gradients that pass through."""
    with StraightThrough():
        return propose(x, y)


@attacks.register
class BPDA(PGDAttack):
    """PGD, with its settings, on gradients that ignore rounding."""

    name: ClassVar[str] = "bpda"

    def stages(self, target):
        """Return PGD's stage."""
        return [(name, partial(through, propose)) for name, propose in super().stages(target)]


class Rounded(nn.Module):
    """A defence to break: images are rounded to some levels, and logits to multiples of a step."""

    def __init__(self, net: nn.Module, levels: int = 8, step: float = 4.0) -> None:
        super().__init__()
        self.net, self.levels, self.step = net, levels, step

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return rounded logits, N×K, of images N×C×H×W."""
        logits = self.net((x * self.levels).round() / self.levels)
        return self.step * (logits / self.step).round()

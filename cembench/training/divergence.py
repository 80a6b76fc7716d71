"""Divergence of training: a loss, an energy or a weight that is not finite or beyond a bound."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from cembench.util.errors import CembenchError

T = TypeVar("T")


class Diverged(CembenchError):
    """Loss, energy or weights are not finite, or beyond the bound."""


class Watch:
    """Watch over losses and energies: none beyond the bound may change the weights.

    Where the optimizer is fused it does so without waiting for the device. Values are compared
    there, and once one was beyond the bound no step changes the weights, since the result is the
    `found_inf` of torch's gradient scaling. `require` says which one it was, some steps later.

    Args:
        bound: largest absolute value.
        optimizer: the optimizer of the weights.
        device: that of the weights.

    Attributes:
        waits: whether values are read at once.
    """

    def __init__(
        self, bound: float, optimizer: torch.optim.Optimizer, device: torch.device
    ) -> None:
        self.bound, self.waits = bound, not optimizer.defaults["fused"]
        self._beyond = torch.zeros((), device=device)
        if not self.waits:
            optimizer.found_inf = self._beyond  # type: ignore[attr-defined]

    def see(self, values: Mapping[str, Tensor], epoch: int, step: int) -> None:
        """Compare what a step logs, before the weights change.

        Raises:
            Diverged: when a value is beyond the bound, unless that is found later.
        """
        if self.waits:
            self.require(epoch, values, step)
        else:
            found = torch.stack([value.float() for value in _checked(values).values()])
            self._beyond.clamp_(min=(~(found.abs() <= self.bound).all()).float())

    def require(self, epoch: int, values: Mapping[str, Tensor | float], step: int) -> None:
        """Refuse what a step logged if it is beyond the bound.

        Args:
            epoch: epochs done.
            values: logged values by name, scalars; those named `loss` or `lse…` are checked.
            step: steps of this epoch done before it.

        Raises:
            Diverged: naming the value.
        """
        for name, value in _checked(values).items():
            if not abs(float(value)) <= self.bound:
                where = f"epoch {epoch + 1}, step {step + 1}"
                raise diverged(f"{name} is {float(value)} at {where}", epoch)

    def forget(self) -> None:
        """Let the weights change again, which were restored."""
        self._beyond.zero_()


def _checked(values: Mapping[str, T]) -> dict[str, T]:
    return {key: it for key, it in values.items() if key == "loss" or key.startswith("lse")}


def require_finite(model: nn.Module, epoch: int) -> None:
    """Refuse weights that are not finite; `epoch` epochs were done before.

    Raises:
        Diverged: naming the weight.
    """
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not value.isfinite().all():
            raise diverged(f"{name} is not finite after epoch {epoch + 1}", epoch)


def diverged(what: str, epoch: int) -> Diverged:
    """Return the error for a divergence after `epoch` epochs."""
    kept = f"the state after epoch {epoch} is kept" if epoch else "nothing was kept yet"
    return Diverged(f"{what}; {kept}; lower optimizer.lr or set optimizer.clip in a new run")

"""Divergence of training: a loss, an energy or a weight that is not finite or beyond a bound."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from cembench.util.errors import CembenchError


class Diverged(CembenchError):
    """Loss, energy or weights are not finite, or beyond the bound."""


def require_bounded(values: Mapping[str, Tensor], bound: float, epoch: int, step: int) -> None:
    """Refuse a loss or an energy that is not finite or beyond the bound.

    Args:
        values: logged values by name, scalars; those named `loss` or `lse…` are checked.
        bound: largest absolute value.
        epoch: epochs done.
        step: steps of this epoch done.

    Raises:
        Diverged: naming the value.
    """
    for name, value in values.items():
        checked = name == "loss" or name.startswith("lse")
        if checked and not value.abs() <= bound:
            where = f"epoch {epoch + 1}, step {step + 1}"
            raise diverged(f"{name} is {float(value)} at {where}", epoch)


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

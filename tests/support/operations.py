"""Operations of a loop, and how often it waits for the device, without those of the network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

# Results that the host needs: values, and numbers of rows that depend on values.
WAITING = frozenset(
    {"_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "equal"}
    | {"_unique2", "unique_dim", "unique_consecutive", "repeat_interleave"}
)
EMPTY = frozenset({"empty", "empty_like", "new_empty"})  # nothing is computed
MASKED = frozenset({"index", "index_put", "index_put_", "_index_put_impl_"})  # with a mask they do


class Operations(TorchDispatchMode):
    """Count of the operations that torch is asked for in a block, but for views.

    Attributes:
        found: how many of each.
        waits: those that would have to wait for a GPU.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count one operation, and run it."""
        name = func._schema.name.removeprefix("aten::")
        if not func.is_view and name not in EMPTY:
            self.found[name] += 1
            if name in WAITING or (name in MASKED and _masks(args[1])):
                self.waits[name] += 1
        return func(*args, **(kwargs or {}))

    def __enter__(self) -> Operations:
        """Begin, and count `tolist` of several values too, which torch does not dispatch."""
        self._tolist = Tensor.tolist
        Tensor.tolist = lambda tensor: self._listed(tensor)  # type: ignore[method-assign]
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        """End."""
        super().__exit__(*error)
        Tensor.tolist = self._tolist  # type: ignore[method-assign]

    def _listed(self, tensor: Tensor) -> Any:
        self.waits["tolist"] += 1
        return self._tolist(tensor)


class Unseen(nn.Module):
    """A network whose operations, forward and backward, are not counted."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs."""
        return _Pass.apply(x, self.model)


class _Pass(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, model: nn.Module) -> Tensor:
        with _disable_current_modes(), torch.enable_grad():
            ctx.x = x.detach().requires_grad_()
            ctx.out = model(ctx.x)
            return ctx.out.detach()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        with _disable_current_modes():
            return torch.autograd.grad(ctx.out, ctx.x, slope)[0], None


def a_step(run: Callable[[int], Any], few: int, many: int) -> tuple[float, float]:
    """Return operations and waits of a step: what a longer run takes more, a step more."""
    counts = []
    for steps in (few, many):
        with Operations() as counted:
            run(steps)
        counts.append((counted.found.total(), counted.waits.total()))
    (ops, waits), (more_ops, more_waits) = counts
    return (more_ops - ops) / (many - few), (more_waits - waits) / (many - few)


def _masks(indices: Any) -> bool:
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)

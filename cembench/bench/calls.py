"""Counter of the operators that a block runs, and of its host synchronisations.

Both are counted on a CPU, without timing anything, and are the same on every run. On a GPU each
operator that computes is a kernel launch, and at each synchronisation the host waits for the
device, and then the device for the host.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Self

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

# Operators whose result, or its shape, the host must know.
WAITING = frozenset(
    {
        "_local_scalar_dense",
        "_unique2",
        "equal",
        "is_nonzero",
        "masked_select",
        "nonzero",
        "unique_consecutive",
        "unique_dim",
    }
)
COPYING = frozenset({"tolist", "cpu", "numpy"})  # of tensors, which no operator shows on a CPU


class Calls:
    """Counter of a block.

    Attributes:
        operations: ATen operators, those of backward passes included.
        synchronisations: how often the host would wait for a GPU: values that become Python's,
            copies to the CPU, and shapes that depend on values, such as those of boolean indices.
        flops: floating-point operations of convolutions and products.
    """

    def __init__(self) -> None:
        self.operations = self.synchronisations = self.flops = 0

    def __enter__(self) -> Self:
        self._modes = ExitStack()
        self._modes.enter_context(_Operators(self))
        self._modes.enter_context(_Copies(self))
        return self

    def __exit__(self, *_: object) -> None:
        self._modes.close()


class _Operators(TorchDispatchMode):
    def __init__(self, calls: Calls) -> None:
        super().__init__()
        self.calls = calls

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        self.calls.operations += 1
        self.calls.synchronisations += _waits(func, args)
        if (flops := flop_registry.get(func.overloadpacket)) is not None:
            self.calls.flops += flops(*args, **(kwargs or {}), out_val=out)
        elif func.overloadpacket.__name__.startswith("_convolution_pointwise"):
            self.calls.flops += _of_fused(args, out)
        return out


class _Copies(TorchFunctionMode):
    def __init__(self, calls: Calls) -> None:
        super().__init__()
        self.calls = calls

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        self.calls.synchronisations += getattr(func, "__name__", "") in COPYING
        return func(*args, **(kwargs or {}))


def _of_fused(args: Sequence[Any], out: Tensor) -> int:
    """Return the floating-point operations of a fused convolution, which torch does not know."""
    layouts = [arg for arg in args if isinstance(arg, Tensor) and arg.is_mkldnn]
    weight = layouts[0] if layouts else args[1]
    return 2 * out.numel() * math.prod(weight.shape[1:])


def _waits(func: Any, args: Sequence[Any]) -> bool:
    name = func.overloadpacket.__name__
    if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
        masks = [index for index in args[1] if index is not None and index.dtype == torch.bool]
        filled = len(args) > 2 and len(masks) == len(args[1]) == 1 and args[2].numel() == 1
        return bool(masks) and not filled
    if name == "repeat_interleave":
        return func._overloadname == "Tensor"
    return name in WAITING

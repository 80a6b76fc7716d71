"""Fused convolution of a frozen network on a CPU: convolution, addition and ReLU in one call.

oneDNN adds and clips while it still holds the sums of a convolution, so neither costs a pass over
memory. In bfloat16 these passes would take as long as the convolutions of narrow networks.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

LAST = torch.channels_last


class FusedConv(nn.Conv2d):
    """ReLU(conv(x) + other), where both the addition and the ReLU may be left out.

    It shares the weights of the convolution that it is made of, and keeps them in the layouts of
    oneDNN besides, one for each direction. They take no gradients.

    Attributes:
        relu: whether there is a ReLU.
        first: whether it reads the images, so that their gradient gets their layout.
        split: whether float32 weights and inputs are taken apart into two bfloat16 numbers each,
            which loses nothing before the outputs are rounded to bfloat16.
        last_use: whether nothing else reads `other` later, so that it may be overwritten.
        shares: whether the input is returned too. Whatever reads it there sends its gradient here,
            where oneDNN adds it.
    """

    def __init__(self, conv: nn.Conv2d, relu: bool) -> None:
        nn.Module.__init__(self)
        self.__dict__.update({k: v for k, v in conv.__dict__.items() if not k.startswith("_")})
        self._reversed_padding_repeated_twice = conv._reversed_padding_repeated_twice
        self.weight, self.bias = conv.weight, conv.bias
        self.relu = relu
        self.split = self.last_use = self.shares = self.first = False
        self._packed: dict[str, Tensor] = {}

    @cached_property
    def turned(self) -> list[int] | None:
        """Padding of the convolution that computes the input's gradient; None if none does."""
        assert not isinstance(self.padding, str)
        sizes = zip(self.dilation, self.kernel_size, self.padding, strict=True)
        found = [d * (k - 1) - p for d, k, p in sizes]
        return found if set(self.stride) | {self.groups} == {1} and min(found) >= 0 else None

    def forward(self, x: Tensor, other: Tensor | None = None) -> Any:
        """Return N×C×H×W in the type of the weights, and the input if it `shares`."""
        kind = torch.float32 if self.split else self.weight.dtype
        x = x.to(kind) if self.split else x.to(kind, memory_format=LAST)
        other = None if other is None else other.to(kind, memory_format=LAST)
        if torch.is_grad_enabled():
            return _Fused.apply(self, x, other)
        out = self.compute(x, other, self.last_use)
        return (out, x) if self.shares else out

    def compute(self, x: Tensor, other: Tensor | None, overwrite: bool) -> Tensor:
        """Return the outputs alone; `other` may be overwritten by them."""
        x = _halves(x, 1, [0, 1, 0]) if self.split else x
        if "forward" not in self._packed:
            weight = _halves(self.weight, 1, [0, 0, 1]) if self.split else self.weight
            self._packed["forward"] = self._pack(weight, x, self.padding, self.stride)
        bias = self.bias if self.bias is None or self.split else self.bias.to(x.dtype)
        rest = self.padding, self.stride, self.dilation, self.groups
        ops, weight = torch.ops.mkldnn, self._packed["forward"]
        unary = "relu" if self.relu else "none"
        found: Tensor
        if other is None:
            found = ops._convolution_pointwise(x, weight, bias, *rest, unary, [], "")
            return found
        added: tuple[Any, ...] = "add", 1.0, unary if self.relu else None, [], None
        added = weight, bias, *rest, *added
        if overwrite:
            found = ops._convolution_pointwise_.binary(other, x, *added)
        else:
            found = ops._convolution_pointwise.binary(x, other, *added)
        return found

    def input_gradient(self, g: Tensor, shape: torch.Size, more: Tensor | None) -> Tensor:
        """Return the gradient of the input, given that of the sums, plus `more` if given."""
        padding = None if self.first or torch.is_grad_enabled() else self.turned
        if padding is None:
            unread = torch.empty(shape, dtype=g.dtype, memory_format=LAST)
            rest = self.stride, self.padding, self.dilation, False, (0, 0), self.groups
            found, _, _ = torch.ops.aten.convolution_backward(
                g, unread, self.weight.to(g.dtype), None, *rest, (True, False, False)
            )
            return found if more is None else found + more
        if "backward" not in self._packed:
            weight = self.weight.flip(2, 3).transpose(0, 1).to(g.dtype).contiguous()
            self._packed["backward"] = self._pack(weight, g, padding, (1, 1))
        call, weight = torch.ops.mkldnn._convolution_pointwise, self._packed["backward"]
        turned = padding, (1, 1), self.dilation, 1
        if more is None:
            found = call(g, weight, None, *turned, "none", [], "")
        else:
            found = call.binary(g, more, weight, None, *turned, "add", 1.0, None, [], None)
        return found

    def _pack(self, weight: Tensor, x: Tensor, padding: Any, stride: Any) -> Tensor:
        weight = weight.detach().to(x.dtype, memory_format=LAST)
        sizes = padding, stride, self.dilation, self.groups, list(x.shape)
        found: Tensor = torch.ops.mkldnn._reorder_convolution_weight(weight, *sizes)
        return found

    def _apply(self, *args: Any, **kwargs: Any) -> FusedConv:
        self._packed = {}  # the weights are about to change
        super()._apply(*args, **kwargs)
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Return what is copied: all but the layouts of oneDNN, which cannot be."""
        return {**self.__dict__, "_packed": {}}


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, layer: FusedConv, x: Tensor, other: Tensor | None) -> Any:
        out = layer.compute(x, other, overwrite=False)
        ctx.layer, ctx.shape, ctx.kind, ctx.adds = layer, x.shape, x.dtype, other is not None
        ctx.save_for_backward(out if layer.relu else None)
        ctx.set_materialize_grads(False)
        return (out, x) if layer.shares else out

    @staticmethod
    def backward(ctx: Any, g: Tensor | None, more: Tensor | None = None) -> Any:
        if g is None:
            return None, more, None
        (out,) = ctx.saved_tensors
        g = g.contiguous(memory_format=LAST) if out is None else _passed(g, out)
        found = None
        if ctx.needs_input_grad[1]:
            found = ctx.layer.input_gradient(g, ctx.shape, more)
            if ctx.layer.first:
                found = found.to(ctx.kind, memory_format=torch.contiguous_format)
        return None, found, g if ctx.adds else None


def _passed(g: Tensor, out: Tensor) -> Tensor:
    """Return the gradient where the ReLU let its input pass, and 0 elsewhere."""
    g = g.to(out.dtype, memory_format=LAST)
    threshold = torch.ops.aten.threshold_backward
    if g.dtype != torch.bfloat16 or torch.is_grad_enabled():
        return threshold(g, out, 0)
    # The bits of a positive number are a positive integer, and integers are not converted.
    bits: Tensor = threshold(g.view(torch.int16), out.view(torch.int16), 0)
    return bits.view(torch.bfloat16)


def _halves(x: Tensor, dim: int, order: list[int]) -> Tensor:
    """Return the leading bits (0) and the rest (1) of float32 numbers, side by side."""
    leading = x.to(torch.bfloat16)
    parts = leading, (x - leading).to(torch.bfloat16)
    return torch.cat([parts[index] for index in order], dim).contiguous(memory_format=LAST)

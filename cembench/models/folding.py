"""Folding of the batch norms of a frozen network into its convolutions.

In evaluation mode a batch norm is an affine map per channel, which the convolution before it can
take over (Jacob et al., arXiv 1712.05877, section 3.2). On a CPU most of what is saved is the
backward pass: torch's batch norm costs more there than the convolution.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cembench.util.frozen import frozen

TOLERANCE = 1e-3  # far above float32 rounding through tens of layers


class Affine(nn.Module):
    """Batch norm without a convolution before it: one scale and one shift per channel."""

    scale: Tensor
    shift: Tensor

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        assert norm.running_mean is not None and norm.running_var is not None
        scale = (norm.running_var + norm.eps).rsqrt()
        scale = scale if norm.weight is None else scale * norm.weight
        shift = -norm.running_mean * scale
        shift = shift if norm.bias is None else shift + norm.bias
        self.register_buffer("scale", scale.detach().reshape(1, -1, 1, 1))
        self.register_buffer("shift", shift.detach().reshape(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Scale and shift N×C×H×W."""
        return torch.addcmul(self.shift.to(x.dtype), x, self.scale.to(x.dtype))


def folded(model: nn.Module, example: Tensor) -> nn.Module:
    """Return a copy of a network in evaluation mode with its batch norms folded.

    Which convolution a batch norm follows, and that nothing else does, is seen in the graph of a
    forward pass, so any architecture will do. The network itself is returned when there is nothing
    to fold, or when the copy does not compute the same on the example, as with a random one.
    """
    expected, found = _watch(model, example)
    if not found:
        return model
    with torch.no_grad():
        copied = copy.deepcopy(model)
        for name, before in found.items():
            norm = copied.get_submodule(name)
            assert isinstance(norm, nn.BatchNorm2d)
            if before is None:
                copied.set_submodule(name, Affine(norm))
            else:
                conv = copied.get_submodule(before)
                assert isinstance(conv, nn.Conv2d)
                copied.set_submodule(before, fuse_conv_bn_eval(conv, norm))
                copied.set_submodule(name, nn.Identity())
        same = torch.allclose(copied(example), expected, TOLERANCE, TOLERANCE)
    return copied if same else model


@contextmanager
def ascent_model(
    model: nn.Module, x: Tensor, mode: Literal["eval", "train"] = "eval"
) -> Iterator[nn.Module]:
    """Yield the network whose gradients are followed: frozen, and folded in reduced precision.

    In float32 it is the network itself, to the last bit. So it is for a compiled network: a copy
    would have to be compiled again in every step.
    """
    with frozen(model, mode):
        reduced = torch.is_autocast_enabled(x.device.type) and mode == "eval"
        compiled = model._compiled_call_impl is not None
        if reduced and not compiled:
            with torch.autocast(x.device.type, enabled=False):
                model = folded(model, x[:2])
        yield model


def _watch(model: nn.Module, example: Tensor) -> tuple[Tensor, dict[str, str | None]]:
    """Return the outputs, and per batch norm the convolution that it alone reads, if any."""
    names = {module: name for name, module in model.named_modules()}
    made: dict[Node, str] = {}
    read: dict[str, Node | None] = {}

    def after_conv(module: nn.Module, args: Any, out: Tensor) -> None:
        if out.grad_fn is not None:
            made[out.grad_fn] = names[module]

    def before_norm(module: nn.Module, args: Any) -> None:
        read[names[module]] = args[0].grad_fn

    convs = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    norms = [
        module
        for module in model.modules()
        if isinstance(module, nn.BatchNorm2d) and module.track_running_stats and not module.training
    ]
    hooks = [conv.register_forward_hook(after_conv) for conv in convs]
    hooks += [norm.register_forward_pre_hook(before_norm) for norm in norms]
    try:
        with torch.enable_grad():
            out = model(example.detach().requires_grad_())
    finally:
        for hook in hooks:
            hook.remove()
    readers = _readers(out.grad_fn)
    single = {node: name for node, name in made.items() if readers[node] == 1}
    return out.detach(), {
        norm: None if node is None else single.get(node) for norm, node in read.items()
    }


def _readers(last: Node | None) -> Counter[Node]:
    """Count for each operation how many others read its result."""
    found: Counter[Node] = Counter()
    left = [] if last is None else [last]
    while left:
        for node, _ in left.pop().next_functions:
            if node is not None:
                left += [] if node in found else [node]
                found[node] += 1
    return found

"""Folding of the batch norms of a frozen network into its convolutions.

In evaluation mode a batch norm is an affine map per channel, which the convolution before it can
take over (Jacob et al., arXiv 1712.05877, section 3.2). On a CPU most of what is saved is the
backward pass: torch's batch norm costs more there than the convolution.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from cembench.util.errors import ModelError
from cembench.util.frozen import copied

TOLERANCE = 1e-3  # of the largest output, far above float32 rounding through tens of layers

Folds = Mapping[str, str | None]
Writer = Callable[[Tensor, Tensor], None]


class Affine(nn.Module):
    """Batch norm without a convolution before it: one scale and one shift per channel."""

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", torch.empty_like(mean).reshape(1, -1, 1, 1))
        self.register_buffer("shift", torch.empty_like(mean).reshape(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Scale and shift N×C×H×W."""
        return torch.addcmul(self.shift.to(x.dtype), x, self.scale.to(x.dtype))


class Folded:
    """Copy of a network in evaluation mode with its batch norms folded, which can follow it.

    Args:
        model: the network; its tensors may change, but only in place.
        folds: per batch norm the convolution that takes it over, if any, both by name.
        dtype: of the weights of convolutions and linear layers; their own unless given.

    Attributes:
        network: the copy, frozen.

    Raises:
        ModelError: when the network cannot be copied.
    """

    def __init__(self, model: nn.Module, folds: Folds, dtype: torch.dtype | None = None) -> None:
        network = copied(model)
        if network is None:
            raise ModelError("the network cannot be copied")
        self.network = network.eval()
        self._norms = [_norm(model, name) for name in folds]
        self._writers = [self._replace(model, norm, conv) for norm, conv in folds.items()]
        for layer in self.network.modules():
            if dtype is not None and type(layer) in (nn.Conv2d, nn.Linear):
                layer.to(dtype)
        self.network.requires_grad_(False)
        own, copies = _tensors(model), _tensors(self.network)
        folded = {f"{conv}.{part}" for conv in folds.values() for part in ("weight", "bias")}
        rest = [name for name in own if name in copies and name not in folded]
        self._rest = [copies[name] for name in rest], [own[name] for name in rest]
        self.refresh()

    def _replace(self, model: nn.Module, norm: str, conv: str | None) -> Writer:
        """Replace a batch norm of the copy; return what writes its scale and shift into it."""
        if conv is None:
            affine = Affine(_norm(model, norm)[0])
            self.network.set_submodule(norm, affine)
            return partial(_write_affine, affine)
        source, target = model.get_submodule(conv), self.network.get_submodule(conv)
        assert isinstance(source, nn.Conv2d) and isinstance(target, nn.Conv2d)
        if target.bias is None:
            target.bias = nn.Parameter(target.weight.new_empty(target.out_channels))
        self.network.set_submodule(norm, nn.Identity())
        return partial(_write_conv, source, target)

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the tensors of the network as they are now."""
        if self._rest[0]:
            torch._foreach_copy_(*self._rest)
        if not self._norms:
            return
        means, variances, weights, biases, eps = map(list, zip(*self._norms, strict=True))
        scales = torch._foreach_add(variances, eps)
        torch._foreach_rsqrt_(scales)
        torch._foreach_mul_(scales, weights)
        shifts = torch._foreach_sub(biases, torch._foreach_mul(means, scales))
        for write, scale, shift in zip(self._writers, scales, shifts, strict=True):
            write(scale, shift)


def folded(model: nn.Module, example: Tensor) -> nn.Module:
    """Return a copy of a network in evaluation mode with its batch norms folded.

    The network itself is returned when there is nothing to fold, when it cannot be copied, or when
    the copy does not compute the same on the example, as with a random one.
    """
    expected, folds = find_folds(model, example)
    if not folds:
        return model
    try:
        network = Folded(model, folds).network
    except ModelError:
        return model
    return network if computes(network, example, expected) else model


def computes(network: nn.Module, x: Tensor, expected: Tensor) -> bool:
    """Return whether a copy gives the outputs that are expected, up to rounding."""
    with torch.no_grad():
        apart, largest = (network(x) - expected).abs().max(), expected.abs().max()
    return bool(apart <= TOLERANCE * (1 + largest))


def find_folds(model: nn.Module, example: Tensor) -> tuple[Tensor, dict[str, str | None]]:
    """Return the outputs, and per batch norm the convolution that it alone reads, if any.

    Which convolution a batch norm follows, and that nothing else does, is seen in the graph of a
    forward pass, so any architecture will do.

    Args:
        model: a network in evaluation mode.
        example: images, N×C×H×W.
    """
    names = {module: name for name, module in model.named_modules()}
    made: dict[Node, str] = {}
    read: dict[str, Node | None] = {}

    def after_conv(module: nn.Module, args: Any, out: Tensor) -> None:
        if out.grad_fn is not None:
            made[out.grad_fn] = names[module]

    def before_norm(module: nn.Module, args: Any) -> None:
        read[names[module]] = args[0].grad_fn

    convs = [module for module in model.modules() if type(module) is nn.Conv2d]
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


def _norm(model: nn.Module, name: str) -> tuple[Tensor, Tensor, Tensor, Tensor, float]:
    """Return mean, variance, weight and bias of a batch norm, and its ε."""
    norm = model.get_submodule(name)
    assert isinstance(norm, nn.BatchNorm2d)
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None and variance is not None
    weight = torch.ones_like(mean) if norm.weight is None else norm.weight
    bias = torch.zeros_like(mean) if norm.bias is None else norm.bias
    return mean, variance, weight, bias, norm.eps


def _write_affine(target: Affine, scale: Tensor, shift: Tensor) -> None:
    target.scale.copy_(scale.view_as(target.scale))
    target.shift.copy_(shift.view_as(target.shift))


def _write_conv(source: nn.Conv2d, target: nn.Conv2d, scale: Tensor, shift: Tensor) -> None:
    assert target.bias is not None
    torch.mul(source.weight, scale.view(-1, 1, 1, 1), out=target.weight)
    if source.bias is not None:
        shift = torch.addcmul(shift, source.bias, scale)
    target.bias.copy_(shift)


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}

"""Fusion of the convolutions of a network with the additions and ReLUs that follow them."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from cembench.models.copies.fused_conv import FusedConv
from cembench.util.rng import isolated_rng

TOLERANCE = 1e-3  # far above float32 rounding through tens of layers
ADDITIONS = {operator.add, operator.iadd, torch.add}
IN_PLACE = {operator.iadd, operator.isub, operator.imul, operator.itruediv}
RELUS = {functional.relu, functional.relu_, torch.relu, torch.relu_, "relu", "relu_"}


def fused(model: nn.Module, example: Tensor) -> nn.Module | None:
    """Return the same function with fused convolutions, sharing the weights of a network.

    Args:
        model: a frozen network in evaluation mode, in float32.
        example: a few images that both are tried on.

    Returns:
        None where this changes outputs or gradients, or cannot be done: off a CPU, for control
        flow that depends on values, random numbers, gradients inside the forward pass.
    """
    if example.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return None
    try:
        with isolated_rng(0):
            found = _rewritten(model)
            return found if found is not None and _agree(found, model, example) else None
    except Exception:  # whatever code of users raises when it is traced
        return None


def _rewritten(model: nn.Module) -> nn.Module | None:
    graph = fx.Tracer().trace(model)
    module = fx.GraphModule(model, graph)
    for node in list(graph.nodes):
        if isinstance(_layer(node), nn.Identity):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    if any(_in_place(node) and len(node.args[0].users) > 1 for node in graph.nodes):
        return None
    convs = [node for node in graph.nodes if _fusible(_layer(node))]
    for number, node in enumerate(reversed(convs)):
        _fuse(node, f"fused{number}", first=node is convs[0])
    graph.eliminate_dead_code()
    _plan(graph)
    graph.lint()
    module.delete_all_unused_submodules()
    module.recompile()
    return module if convs else None


def _layer(node: fx.Node) -> Any:
    """Return the module that a node calls, None if it calls a function."""
    owner = node.graph.owning_module
    assert owner is not None
    return owner.get_submodule(str(node.target)) if node.op == "call_module" else None


def _fusible(layer: Any) -> bool:
    plain = type(layer) is nn.Conv2d and layer.padding_mode == "zeros"
    return plain and not isinstance(layer.padding, str) and not layer._forward_pre_hooks


def _is_relu(node: fx.Node) -> bool:
    return type(_layer(node)) is nn.ReLU or (node.op != "call_module" and node.target in RELUS)


def _in_place(node: fx.Node) -> bool:
    layer = _layer(node)
    if layer is not None:
        return getattr(layer, "inplace", False) is True
    name = getattr(node.target, "__name__", str(node.target))
    written = node.target in IN_PLACE or (name.endswith("_") and not name.endswith("__"))
    return written or node.kwargs.get("inplace") is True


def _fuse(node: fx.Node, name: str, first: bool) -> None:
    """Put a fused convolution in the place of a convolution and of what alone reads it."""
    last, others = node, list[fx.Node]()
    adds = _layer(node).groups == 1  # oneDNN adds nothing to those of groups in bfloat16
    if adds and (user := _only_user(node)) is not None and user.target in ADDITIONS:
        others = [arg for arg in user.args if isinstance(arg, fx.Node) and arg is not node]
        fits = len(user.args) == 2 and not user.kwargs and len(others) == 1
        last = user if fits else node
    user = _only_user(last)
    relu = user is not None and _is_relu(user)
    layer = FusedConv(_layer(node), relu)
    layer.first = first
    args = (node.args[0], *others) if last is not node else (node.args[0],)
    last = user if user is not None and relu else last
    graph = node.graph
    assert graph.owning_module is not None
    graph.owning_module.add_submodule(name, layer)
    with graph.inserting_before(last):
        last.replace_all_uses_with(graph.call_module(name, args))
    graph.eliminate_dead_code()


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _plan(graph: fx.Graph) -> None:
    """Find which inputs may be overwritten, and where gradients can be added for nothing."""
    place = {node: number for number, node in enumerate(graph.nodes)}
    calls = [node for node in graph.nodes if isinstance(_layer(node), FusedConv)]
    for node in calls:
        if len(node.args) == 2 and isinstance(_layer(other := node.args[1]), FusedConv):
            before = all(place[user] <= place[node] and user in calls for user in other.users)
            _layer(node).last_use = before and other is not node.args[0]
    for node in calls:
        layer, source = _layer(node), node.args[0]
        later = [user for user in source.users if place[user] > place[node]]
        if later and not layer.first and layer.turned is not None:
            layer.shares = True
            _share(node, source, later)


def _share(node: fx.Node, source: fx.Node, later: list[fx.Node]) -> None:
    users = list(node.users)
    with node.graph.inserting_after(node):
        again = node.graph.call_function(operator.getitem, (node, 1))
        out = node.graph.call_function(operator.getitem, (node, 0))
    for user in users:
        user.replace_input_with(node, out)
    for user in later:
        user.replace_input_with(source, again)


def _agree(found: nn.Module, model: nn.Module, example: Tensor) -> bool:
    """Return whether outputs are the same with and without gradients, and the gradients too."""
    with torch.no_grad():
        same = _close(found(example), model(example))
    if not same:
        return False
    values, expected = (_value_and_gradient(net, example[:2]) for net in (found, model))
    return all(_close(*pair) for pair in zip(values, expected, strict=True))


def _value_and_gradient(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        x = x.detach().clone().requires_grad_()
        out = model(x)
        (gradient,) = torch.autograd.grad(out.square().sum(), x)
    return out.detach(), gradient


def _close(values: Tensor, expected: Tensor) -> bool:
    bound = TOLERANCE * float(expected.abs().amax())
    return values.shape == expected.shape and torch.allclose(values, expected, TOLERANCE, bound)

"""Surrogate of a network in training: the copy whose gradients its samplers follow.

Between two steps of the optimizer a sampler takes tens of gradients of the same weights. The copy
has batch norms folded, channels last and, under autocast, its weights cast, all of which is done
once per draw, in place.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from cembench.models.copies.folding import Folded, Folds, computes, find_folds, folded
from cembench.models.copies.layout import channels_first
from cembench.util.frozen import copied, exact, frozen
from cembench.util.rng import isolated_rng


class Surrogate:
    """Folded copy of a network that is in training.

    Args:
        model: the network.
        folds: what `find_folds` finds.
        images: a few images, N×C×H×W.
        halved: whether the copy is for autocast, with weights in bfloat16.
    """

    def __init__(self, model: nn.Module, folds: Folds, images: Tensor, halved: bool) -> None:
        self.model, self.halved = model, halved
        self._copy = Folded(model, folds, torch.bfloat16 if halved else None)
        self._copy.network.to(memory_format=torch.channels_last)
        if not halved and images.device.type == "cpu":
            channels_first(self._copy.network, images)

    def of(self, model: nn.Module) -> nn.Module | None:
        """Return the copy at the weights as they are; None where it does not stand for the model.

        A module around the network, without weights of its own, gets the copy in place of it.
        """
        if model is self.model:
            self._copy.refresh()
            return self._copy.network
        inside = [name for name, child in model.named_children() if child is self.model]
        if len(inside) != 1 or len(list(model.children())) > 1 or _own_tensors(model):
            return None
        around = copy.copy(model)
        around._modules = {inside[0]: self.of(self.model)}
        return around


def build_surrogate(model: nn.Module, images: Tensor, halved: bool) -> Surrogate | None:
    """Return the surrogate of a network; None where no copy computes the same.

    So it is with a network that is random, or whose layers depend on the images. The test is at
    random weights, so a resumed run follows what the run before did.

    Args:
        model: the network.
        images: a few images that it is tried on, N×C×H×W.
        halved: whether it trains in bfloat16, under autocast.
    """
    tried = copied(model)
    if tried is None:
        return None
    with isolated_rng(0), frozen(model), exact():
        try:
            folds = _tested_folds(tried.eval().requires_grad_(False), images)
        except Exception:  # what is wrong with the network will be said where it is used
            return None
    return None if folds is None else Surrogate(model, folds, images, halved)


def _tested_folds(model: nn.Module, images: Tensor) -> Folds | None:
    """Return what can be folded, if a copy follows other weights, on various images."""
    first, folds = find_folds(model, images)
    followed = Folded(model, folds)
    _randomise(model)
    followed.refresh()
    inputs = [images, torch.rand_like(images), torch.zeros_like(images), torch.ones_like(images)]
    found = [find_folds(model, x) for x in inputs]
    same = all(
        folds == other and computes(followed.network, x, out)
        for x, (out, other) in zip(inputs, found, strict=True)
    )
    return folds if same and not torch.equal(found[0][0], first) else None


@torch.no_grad()
def _randomise(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            mean, variance = module.running_mean, module.running_var
            if mean is not None and variance is not None:
                mean.uniform_(-0.5, 0.5)
                variance.uniform_(0.5, 1.5)
    for parameter in model.parameters():
        parameter.add_(0.2 * torch.rand_like(parameter) * (parameter.abs() + 0.1))


def _own_tensors(model: nn.Module) -> bool:
    own = [*model.parameters(recurse=False), *model.buffers(recurse=False)]
    return bool(own)


@contextmanager
def ascent_model(
    model: nn.Module,
    x: Tensor,
    mode: Literal["eval", "train"] = "eval",
    surrogate: Surrogate | None = None,
) -> Iterator[nn.Module]:
    """Yield the network whose gradients are followed: the surrogate, or the network, frozen.

    Without a surrogate it is the network itself to the last bit, unless it is under autocast: then
    its batch norms are folded, but where it is compiled, since a copy would be compiled again.
    """
    reduced = torch.is_autocast_enabled(x.device.type)
    if surrogate is not None and mode == "eval" and surrogate.halved == reduced:
        found = surrogate.of(model)
        if found is not None:
            yield found
            return
    with frozen(model, mode):
        if reduced and mode == "eval" and model._compiled_call_impl is None:
            with torch.autocast(x.device.type, enabled=False):
                model = folded(model, x[:2])
        yield model

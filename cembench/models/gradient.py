"""Gradient of a network with respect to its images: whether there is one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cembench.energy.ascent import gradient_of
from cembench.models.classifier import called
from cembench.util.errors import ModelError, NoGradientError, one_line
from cembench.util.rng import isolated_rng


def missing_gradient(model: nn.Module, images: Tensor) -> str:
    """Return why autograd finds no gradient of a network's outputs; empty where it finds one.

    A gradient of zeros, as of saturated outputs, is one. Networks without are those that compute
    under `no_grad`, with integers, with NumPy or in functions that have no backward pass.

    Args:
        model: a frozen network in evaluation mode.
        images: a few images that it is tried on, N×C×H×W.

    Raises:
        ModelError: when the network raises an error whether gradients are wanted or not.
    """
    with isolated_rng(0), torch.enable_grad():
        x = images.detach().requires_grad_()
        try:
            gradient_of(called(model, x), x)
        except NoGradientError as error:
            return error.reason
        except ModelError as error:
            with torch.no_grad():
                called(model, images)
            return one_line(error)
    return ""

"""Bounds on what a checkpoint makes its reader build: no more than its weights can fill.

The architecture is built on torch's meta device first, where tensors have shapes and no values, and
its shapes are compared with those of the weights. Only then is it built with memory.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

from cembench.models.classifier import Classifier
from cembench.models.metadata import CheckpointMetadata
from cembench.util.errors import CembenchError
from cembench.util.rng import fork_rng

# Networks register some tensors twice, or replace them, and have buffers that no file holds.
SPARE_TENSORS = 1000
SPARE_BYTES = 2**28
HEAD = "net.head."
WIDENING = 8  # bytes in memory per byte of the file: float64 from 8-bit weights


class Misfit(CembenchError):
    """Weights and architecture differ; the message names the first key that does."""


def limit(weights: Mapping[str, Tensor]) -> int:
    """Return how many bytes a network with these weights may take."""
    return WIDENING * sum(tensor.nbytes for tensor in weights.values()) + SPARE_BYTES


def require_fit(metadata: CheckpointMetadata, weights: Mapping[str, Tensor]) -> None:
    """Compare the shapes of weights with those of the architecture, without memory.

    A network that needs values to be built is not compared: `registering_at_most` stops it when it
    is built with memory.

    Raises:
        Misfit: when they differ, or the network takes far more memory than the weights.
    """
    channels, height, width = metadata.shape
    try:
        with fork_rng(gpus=[]), torch.device("meta"), registering_at_most(weights):
            net = metadata.model.build((channels, height, width), len(metadata.classes))
            model = Classifier(net, torch.zeros(channels), torch.ones(channels), metadata.head)
    except Misfit:
        raise
    except Exception:  # whatever is wrong is wrong with memory too, and worded there
        return
    if metadata.head is not None:  # which is built for the features, of a size known with memory
        net.head = nn.Identity()
        weights = {key: value for key, value in weights.items() if not key.startswith(HEAD)}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*copying from a non-meta parameter")
        fill(model, weights)
    size = sum(tensor.nbytes for tensor in chain(model.parameters(), model.buffers()))
    if size > limit(weights):
        raise Misfit(f"it takes {size:,} bytes, far more than the weights")


@contextmanager
def registering_at_most(weights: Mapping[str, Tensor], size: int | None = None) -> Iterator[None]:
    """Stop this thread when modules register many more tensors than there are weights.

    Args:
        weights: of the network that is built.
        size: the number of bytes that the tensors may take; any unless given.

    Raises:
        Misfit: at the first tensor too many.
    """
    thread, most, count, taken = threading.get_ident(), 2 * len(weights) + SPARE_TENSORS, 0, 0

    def registered(module: nn.Module, name: str, tensor: Tensor | None) -> None:
        nonlocal count, taken
        if tensor is None or threading.get_ident() != thread:
            return
        count, taken = count + 1, taken + tensor.nbytes
        if count > most or (size is not None and taken > size):
            raise Misfit(f"it asks for far more than the {len(weights)} tensors in the file")

    hooks = [
        register_module_buffer_registration_hook(registered),
        register_module_parameter_registration_hook(registered),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def fill(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load weights into a network, all of them and nothing else.

    Raises:
        Misfit: naming the first key that differs.
    """
    try:
        missing, unexpected = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        first = str(error).splitlines()[1:2] or [str(error)]
        raise Misfit(first[0].strip()) from error
    if missing:
        raise Misfit(f"the file has no {missing[0]}")
    if unexpected:
        raise Misfit(f"the network has no {unexpected[0]}, which the file holds")
